/* SPDX-License-Identifier: MIT */
/*
 * The backend that counts, checks and fails on command (see support.h). Its header sits directly
 * before the block, so a library that writes before its memory is found out at the free.
 */
#include "support.h"

#define LIVE_MARK UINT64_C(0x6C61726465722121)
#define FREED_MARK UINT64_C(0x6672656564212121)

struct header {
    uint64_t mark;
    uint64_t size;
    void *base;
};

static struct header *header_of(void *ptr)
{
    return (struct header *)(void *)((char *)ptr - sizeof(struct header));
}

/* Only memory that somebody could rely on by mistake: the start, and the end. */
static void make_dirty(void *ptr, size_t size)
{
    if (size <= MIB) {
        memset(ptr, 0xA5, size);
        return;
    }
    memset(ptr, 0xA5, MIB);
    memset((char *)ptr + size - 4 * KIB, 0xA5, 4 * KIB);
}

static bool must_fail(struct counted *counted, uint64_t call, size_t size)
{
    uint64_t fail_at = atomic_load(&counted->fail_at);
    uint64_t fail_from = atomic_load(&counted->fail_from);
    uint64_t budget = atomic_load(&counted->budget_bytes);
    uint64_t largest = atomic_load(&counted->largest_size);

    return (fail_at && call == fail_at) || (fail_from && call >= fail_from) ||
           (largest && size > largest) ||
           (budget && atomic_load(&counted->outstanding_bytes) + size > budget);
}

static void *counted_allocate(void *context, size_t size, size_t alignment)
{
    struct counted *counted = context;
    uint64_t call = atomic_fetch_add(&counted->calls, 1) + 1;
    size_t least = alignment < sizeof(struct header) ? 32 : alignment;
    uintptr_t address;
    struct header *header;
    void *base = NULL;

    if (alignment == 0 || (alignment & (alignment - 1)) != 0)
        atomic_fetch_add(&counted->violations, 1);
    if (!must_fail(counted, call, size) && size < SIZE_MAX / 2 && least < SIZE_MAX / 4)
        base = malloc(size + 2 * least);
    if (!base) {
        atomic_fetch_add(&counted->refused, 1);
        return NULL;
    }
    address = ((uintptr_t)base + sizeof(struct header) + least - 1) & ~(uintptr_t)(least - 1);
    header = header_of((void *)address);
    header->mark = LIVE_MARK;
    header->size = size;
    header->base = base;
    if (!(counted->backend.flags & LARDER_BACKEND_ZEROED))
        make_dirty((void *)address, size);
    else
        memset((void *)address, 0, size);
    atomic_fetch_add(&counted->outstanding_blocks, 1);
    atomic_fetch_add(&counted->outstanding_bytes, size);
    return (void *)address;
}

static void counted_free(void *context, void *ptr, size_t size)
{
    struct counted *counted = context;
    struct header *header = header_of(ptr);
    bool foreign = (counted->backend.flags & LARDER_BACKEND_FREES_FOREIGN) && size == 0;

    atomic_fetch_add(&counted->frees, 1);
    if (header->mark != LIVE_MARK || (!foreign && header->size != size)) {
        atomic_fetch_add(&counted->violations, 1);
        return;
    }
    header->mark = FREED_MARK;
    atomic_fetch_sub(&counted->outstanding_blocks, 1);
    atomic_fetch_sub(&counted->outstanding_bytes, header->size);
    free(header->base);
}

static int counted_discard(void *context, void *ptr, size_t size)
{
    struct counted *counted = context;

    if (!is_aligned(ptr, 4 * KIB) || size % (4 * KIB) != 0)
        atomic_fetch_add(&counted->violations, 1);
    atomic_fetch_add(&counted->discards, 1);
    memset(ptr, 0xDD, size); /* the contents may be lost: they are */
    return 0;
}

void counted_init(struct counted *counted, unsigned flags)
{
    memset(counted, 0, sizeof *counted);
    counted->backend.struct_size = sizeof counted->backend;
    counted->backend.name = "counted";
    counted->backend.allocate = counted_allocate;
    counted->backend.free = counted_free;
    counted->backend.flags = flags;
    counted->backend.context = counted;
}

void counted_add_discard(struct counted *counted)
{
    counted->backend.discard = counted_discard;
}

uint64_t count_of(const _Atomic uint64_t *counter)
{
    return atomic_load((_Atomic uint64_t *)(uintptr_t)counter);
}

void assert_all_returned(struct counted *counted)
{
    ck_assert_uint_eq(count_of(&counted->violations), 0);
    ck_assert_uint_eq(count_of(&counted->outstanding_blocks), 0);
    ck_assert_uint_eq(count_of(&counted->outstanding_bytes), 0);
}
