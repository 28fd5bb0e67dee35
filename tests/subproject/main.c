/* SPDX-License-Identifier: MIT */
/*
 * What a program that uses larder does first: an instance, a block, a scope, the statistics. The second block
 * of a size must come from the cache, which shows that the library in use is a working one.
 */
#include <larder/larder.h>

#include <stdio.h>
#include <string.h>

static int expect(int holds, const char *claim)
{
    if (!holds)
        fprintf(stderr, "consumer: not true: %s\n", claim);
    return holds ? 0 : 1;
}

int main(void)
{
    int failed = 0;
    larder_t *larder = larder_create("consumer", NULL);
    if (larder == NULL) {
        perror("larder_create");
        return 1;
    }
    failed += expect(strcmp(larder_version(), LARDER_VERSION_STRING) == 0,
                     "library and header are of one version");

    void *tensor = larder_alloc(larder, 100000);
    failed += expect(tensor != NULL, "a block is handed out");
    if (tensor != NULL)
        memset(tensor, 1, 100000);
    larder_free(larder, tensor);

    larder_t *previous = larder_scope_enter(larder);
    tensor = larder_current_alloc(100000);
    failed += expect(larder_owner(tensor) == larder, "a scope allocates from its instance");
    larder_current_free(tensor);
    larder_scope_leave(previous);

    larder_stats_t stats = {.struct_size = sizeof stats};
    failed += expect(larder_stats_get(larder, &stats) == 0, "statistics can be read");
    failed += expect(stats.allocations == 2 && stats.frees == 2, "two blocks came and went");
    failed += expect(stats.hits >= 1, "the second block came from the cache");
    failed += expect(larder_destroy(larder) == 0, "nothing is left behind");
    if (failed == 0)
        puts("ok");
    return failed == 0 ? 0 : 1;
}
