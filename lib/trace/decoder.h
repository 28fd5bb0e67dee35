/* SPDX-License-Identifier: MIT */
/*
 * Decompression for input.c: bytes in, bytes out, without malloc (see pages.h).
 *
 * A decoder is fed through decode(): it takes what it can of `in`, fills what it can of `out` and
 * advances both counts. The input is whole when the file ends while at_boundary is true.
 */
#ifndef LARDER_TRACE_DECODER_H
#define LARDER_TRACE_DECODER_H

#include <stdbool.h>
#include <stddef.h>

struct decoder {
    const char *name; /* "gzip", "zstd" */
    void *state;
    /* Returns 0, or a negative errno and what is wrong with the data in *problem. */
    int (*decode)(struct decoder *decoder, const unsigned char *in, size_t in_size, size_t *in_used,
                  unsigned char *out, size_t out_size, size_t *out_used, const char **problem);
    void (*close)(struct decoder *decoder);
    bool at_boundary; /* between two members or frames: the file may end here */
};

/* Each returns 0, -ENOMEM, or -ENOTSUP where this build lacks the library. */
int decoder_open_gzip(struct decoder *out);
int decoder_open_zstd(struct decoder *out);

#endif
