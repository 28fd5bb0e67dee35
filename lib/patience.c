/* SPDX-License-Identifier: MIT */
/* How long idle memory waits: see patience.h. */
#include "patience.h"

static uint32_t wait_of(const struct patience *patience, uint32_t decay_ms)
{
    uint64_t wait = (uint64_t)decay_ms << patience->doublings;
    return wait < INT32_MAX ? (uint32_t)wait : INT32_MAX; /* ages are compared as signed numbers */
}

uint32_t patience_wait_ms(struct patience *patience, uint32_t decay_ms, uint32_t now_ms,
                          uint64_t held)
{
    if (held > patience->held)
        patience->wanted += held - patience->held;
    patience->held = held;
    if (patience->given == 0)
        return wait_of(patience, decay_ms);
    uint64_t window = (uint64_t)wait_of(patience, decay_ms) * PATIENCE_WINDOW;
    if (patience->wanted >= patience->given / 2) {
        patience->doublings += (1u << patience->doublings) < PATIENCE_MOST;
    } else if (now_ms - patience->since_ms >= window) {
        patience->doublings -= patience->doublings != 0;
    } else {
        return wait_of(patience, decay_ms);
    }
    patience->given = 0;
    return wait_of(patience, decay_ms);
}

void patience_note(struct patience *patience, uint32_t now_ms, uint64_t bytes, uint64_t held)
{
    if (patience->given == 0)
        patience->wanted = 0;
    patience->given += bytes;
    patience->since_ms = now_ms;
    patience->held = held;
}
