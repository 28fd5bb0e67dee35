/* SPDX-License-Identifier: MIT */
/* From blocks to slots: see program.h. */
#include "program.h"

#include <errno.h>

#include "pages.h"

#define NO_SLOT UINT32_MAX

struct building {
    struct program *program;
    uint32_t *slot_of;    /* by block; NO_SLOT: not live */
    uint32_t *free_slots; /* a stack: the slot freed last is the warmest */
    size_t free_count;
};

static int append(struct building *building, const struct trace_op *op)
{
    struct program *program = building->program;
    if (pages_reserve(&program->ops, sizeof *program->ops, program->op_count,
                      &program->op_capacity) != 0) {
        return -ENOMEM;
    }
    struct program_op *added = &program->ops[program->op_count++];
    *added = (struct program_op){.size = op->size, .alignment_log2 = op->alignment_log2};
    uint32_t *slot = &building->slot_of[op->block];
    switch (op->kind) {
    case TRACE_FREE:
        added->kind = PROGRAM_FREE;
        added->slot = *slot;
        building->free_slots[building->free_count++] = *slot;
        *slot = NO_SLOT;
        break;
    case TRACE_REALLOCATE:
        added->kind = PROGRAM_REALLOCATE;
        added->slot = *slot;
        break;
    default:
        added->kind = op->alignment_log2 > 0 ? PROGRAM_ALLOCATE_ALIGNED : PROGRAM_ALLOCATE;
        *slot = building->free_count > 0 ? building->free_slots[--building->free_count]
                                         : (uint32_t)program->slot_count++;
        added->slot = *slot;
        break;
    }
    return 0;
}

static int append_all(struct building *building, const struct trace *trace)
{
    for (size_t i = 0; i < trace->op_count; i++) {
        const struct trace_op *op = &trace->ops[i];
        if (op->kind != TRACE_THREAD_DONE && append(building, op) != 0) {
            return -ENOMEM;
        }
    }
    for (uint32_t block = 0; block < trace->block_count; block++) {
        if (building->slot_of[block] != NO_SLOT) {
            struct trace_op release = {.kind = TRACE_FREE, .block = block};
            if (append(building, &release) != 0) {
                return -ENOMEM;
            }
            building->program->added_frees++;
        }
    }
    return 0;
}

int program_build(const struct trace *trace, struct program *out)
{
    size_t table_bytes = trace->block_count * sizeof(uint32_t);
    struct building building = {
        .program = out,
        .slot_of = pages_allocate(table_bytes),
        .free_slots = pages_allocate(table_bytes),
    };
    *out = (struct program){0};
    int result = -ENOMEM;
    if (building.slot_of != NULL && building.free_slots != NULL) {
        for (uint32_t block = 0; block < trace->block_count; block++) {
            building.slot_of[block] = NO_SLOT;
        }
        result = append_all(&building, trace);
    }
    pages_free(building.slot_of, table_bytes);
    pages_free(building.free_slots, table_bytes);
    if (result != 0) {
        program_release(out);
    }
    return result;
}

void program_release(struct program *program)
{
    pages_free(program->ops, program->op_capacity * sizeof *program->ops);
    *program = (struct program){0};
}
