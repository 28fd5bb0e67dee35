/* SPDX-License-Identifier: MIT */
/* A libFuzzer harness for the reader of the tools' own JSON lines. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char word[16];
    double number;
    uint64_t count;
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    (void)json_get_number(text, "ns_per_op", &number);
    (void)json_get_count(text, "faults", &count);
    if (json_get_string(text, "backend", word, sizeof word) &&
        strnlen(word, sizeof word) == sizeof word) {
        abort();
    }
    free(text);
    return 0;
}
