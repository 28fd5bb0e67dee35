/* SPDX-License-Identifier: MIT */
/*
 * gzip through zlib and zstd through libzstd, as streams.
 *
 * Both libraries are handed allocation functions over pages_allocate(): a freed zstd window of 8
 * MiB alone would raise glibc's mmap threshold and change what a replay of glibc measures.
 */
#include "decoder.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "pages.h"

#ifdef HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef HAVE_ZSTD
#ifdef HAVE_ZSTD_CUSTOM_MEMORY
#define ZSTD_STATIC_LINKING_ONLY
#endif
#include <zstd.h>
#endif

#if defined(HAVE_ZLIB) || defined(HAVE_ZSTD_CUSTOM_MEMORY)
/* In front of each block, so that release needs no size; keeps the block 64-byte aligned. */
#define HEADER_BYTES 64

static void *allocate_for_library(size_t size)
{
    size_t *header = size > SIZE_MAX - HEADER_BYTES ? NULL : pages_allocate(size + HEADER_BYTES);
    if (header == NULL) {
        return NULL;
    }
    *header = size + HEADER_BYTES;
    return (char *)header + HEADER_BYTES;
}

static void release_for_library(void *block)
{
    if (block != NULL) {
        size_t *header = (size_t *)(void *)((char *)block - HEADER_BYTES);
        pages_free(header, *header);
    }
}
#endif

#ifdef HAVE_ZLIB
static voidpf zlib_allocate(voidpf opaque, uInt items, uInt size)
{
    (void)opaque;
    return allocate_for_library((size_t)items * size);
}

static void zlib_release(voidpf opaque, voidpf block)
{
    (void)opaque;
    release_for_library(block);
}

static int gzip_decode(struct decoder *decoder, const unsigned char *in, size_t in_size,
                       size_t *in_used, unsigned char *out, size_t out_size, size_t *out_used,
                       const char **problem)
{
    z_stream *stream = decoder->state;
    if (decoder->at_boundary && in_size > 0) {
        inflateReset(stream);
        decoder->at_boundary = false;
    }
    stream->next_in = (z_const Bytef *)(uintptr_t)in;
    stream->avail_in = (uInt)in_size;
    stream->next_out = out;
    stream->avail_out = (uInt)out_size;
    int result = inflate(stream, Z_NO_FLUSH);
    *in_used = in_size - stream->avail_in;
    *out_used = out_size - stream->avail_out;
    if (result == Z_STREAM_END) {
        decoder->at_boundary = true;
        return 0;
    }
    if (result == Z_OK || result == Z_BUF_ERROR) {
        return 0;
    }
    *problem = result == Z_MEM_ERROR ? "out of memory"
               : stream->msg != NULL ? stream->msg
                                     : "bad data";
    return result == Z_MEM_ERROR ? -ENOMEM : -EINVAL;
}

static void gzip_close(struct decoder *decoder)
{
    inflateEnd(decoder->state);
    pages_free(decoder->state, sizeof(z_stream));
}

int decoder_open_gzip(struct decoder *out)
{
    z_stream *stream = pages_allocate(sizeof *stream);
    if (stream == NULL) {
        return -ENOMEM;
    }
    stream->zalloc = zlib_allocate;
    stream->zfree = zlib_release;
    if (inflateInit2(stream, 16 + MAX_WBITS) != Z_OK) {
        pages_free(stream, sizeof *stream);
        return -ENOMEM;
    }
    *out = (struct decoder){
        .name = "gzip", .state = stream, .decode = gzip_decode, .close = gzip_close};
    return 0;
}
#else
int decoder_open_gzip(struct decoder *out)
{
    (void)out;
    return -ENOTSUP;
}
#endif

#ifdef HAVE_ZSTD
#ifdef HAVE_ZSTD_CUSTOM_MEMORY
static void *zstd_allocate(void *opaque, size_t size)
{
    (void)opaque;
    return allocate_for_library(size);
}

static void zstd_release(void *opaque, void *block)
{
    (void)opaque;
    release_for_library(block);
}

static ZSTD_DStream *zstd_create(void)
{
    ZSTD_customMem memory = {.customAlloc = zstd_allocate, .customFree = zstd_release};
    return ZSTD_createDStream_advanced(memory);
}
#else
static ZSTD_DStream *zstd_create(void)
{
    return ZSTD_createDStream();
}
#endif

static int zstd_decode(struct decoder *decoder, const unsigned char *in, size_t in_size,
                       size_t *in_used, unsigned char *out, size_t out_size, size_t *out_used,
                       const char **problem)
{
    ZSTD_inBuffer input = {.src = in, .size = in_size};
    ZSTD_outBuffer output = {.dst = out, .size = out_size};
    size_t result = ZSTD_decompressStream(decoder->state, &output, &input);
    *in_used = input.pos;
    *out_used = output.pos;
    if (ZSTD_isError(result)) {
        *problem = ZSTD_getErrorName(result);
        return -EINVAL;
    }
    /* With nothing consumed, 0 is not told apart from "a new frame may begin". */
    if (input.pos > 0 || output.pos > 0) {
        decoder->at_boundary = result == 0;
    }
    return 0;
}

static void zstd_close(struct decoder *decoder)
{
    ZSTD_freeDStream(decoder->state);
}

int decoder_open_zstd(struct decoder *out)
{
    ZSTD_DStream *stream = zstd_create();
    if (stream == NULL) {
        return -ENOMEM;
    }
    *out = (struct decoder){
        .name = "zstd", .state = stream, .decode = zstd_decode, .close = zstd_close};
    return 0;
}
#else
int decoder_open_zstd(struct decoder *out)
{
    (void)out;
    return -ENOTSUP;
}
#endif
