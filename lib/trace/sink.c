/* SPDX-License-Identifier: MIT */
/* Bytes to a file, packed or not: see sink.h. */
#include "sink.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "pages.h"

#ifdef HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#define BUFFER_BYTES 65536u
#define PRINT_MAX 4000

/* Between speed and size, as for the native format. */
#define ZSTD_LEVEL 9

struct sink {
    FILE *file;
    enum sink_packing packing;
    int error; /* the first one */
    size_t used;
#ifdef HAVE_ZLIB
    z_stream gzip;
#endif
#ifdef HAVE_ZSTD
    ZSTD_CStream *zstd;
#endif
    unsigned char buffer[BUFFER_BYTES];
    unsigned char packed[BUFFER_BYTES];
};

static void put(struct sink *sink, const void *bytes, size_t size)
{
    if (sink->error == 0 && size > 0 && fwrite(bytes, 1, size, sink->file) != size) {
        sink->error = -EIO;
    }
}

#ifdef HAVE_ZLIB
static void flush_gzip(struct sink *sink, bool last)
{
    sink->gzip.next_in = sink->buffer;
    sink->gzip.avail_in = (uInt)sink->used;
    do {
        sink->gzip.next_out = sink->packed;
        sink->gzip.avail_out = BUFFER_BYTES;
        if (deflate(&sink->gzip, last ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_ERROR) {
            sink->error = -EIO;
            return;
        }
        put(sink, sink->packed, BUFFER_BYTES - sink->gzip.avail_out);
    } while (sink->gzip.avail_out == 0);
}
#endif

#ifdef HAVE_ZSTD
static void flush_zstd(struct sink *sink, bool last)
{
    ZSTD_inBuffer in = {.src = sink->buffer, .size = sink->used};
    size_t left;
    do {
        ZSTD_outBuffer out = {.dst = sink->packed, .size = BUFFER_BYTES};
        left = ZSTD_compressStream2(sink->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left)) {
            sink->error = -ENOMEM;
            return;
        }
        put(sink, sink->packed, out.pos);
    } while (last ? left > 0 : in.pos < in.size);
}
#endif

static void flush(struct sink *sink, bool last)
{
    switch (sink->packing) {
#ifdef HAVE_ZLIB
    case SINK_GZIP:
        flush_gzip(sink, last);
        break;
#endif
#ifdef HAVE_ZSTD
    case SINK_ZSTD:
        flush_zstd(sink, last);
        break;
#endif
    default:
        (void)last;
        put(sink, sink->buffer, sink->used);
        break;
    }
    sink->used = 0;
}

static int start_packing(struct sink *sink)
{
    switch (sink->packing) {
    case SINK_PLAIN:
        return 0;
#ifdef HAVE_ZLIB
    case SINK_GZIP:
        return deflateInit2(&sink->gzip, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 16 + MAX_WBITS, 8,
                            Z_DEFAULT_STRATEGY) == Z_OK
                   ? 0
                   : -ENOMEM;
#endif
#ifdef HAVE_ZSTD
    case SINK_ZSTD:
        sink->zstd = ZSTD_createCStream();
        if (sink->zstd == NULL) {
            return -ENOMEM;
        }
        ZSTD_CCtx_setParameter(sink->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
        ZSTD_CCtx_setParameter(sink->zstd, ZSTD_c_checksumFlag, 1);
        return 0;
#endif
    default:
        return -ENOTSUP;
    }
}

int sink_open(struct sink **out, FILE *file, enum sink_packing packing)
{
    struct sink *sink = pages_allocate(sizeof *sink);
    if (sink == NULL) {
        return -ENOMEM;
    }
    sink->file = file;
    sink->packing = packing;
    int result = start_packing(sink);
    if (result != 0) {
        pages_free(sink, sizeof *sink);
        return result;
    }
    *out = sink;
    return 0;
}

void sink_write(struct sink *sink, const void *bytes, size_t size)
{
    const unsigned char *next = bytes;
    while (size > 0 && sink->error == 0) {
        size_t room = BUFFER_BYTES - sink->used;
        size_t part = size < room ? size : room;
        memcpy(sink->buffer + sink->used, next, part);
        sink->used += part;
        next += part;
        size -= part;
        if (sink->used == BUFFER_BYTES) {
            flush(sink, false);
        }
    }
}

void sink_print(struct sink *sink, const char *format, ...)
{
    if (BUFFER_BYTES - sink->used <= PRINT_MAX) {
        flush(sink, false);
    }
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf((char *)sink->buffer + sink->used, PRINT_MAX + 1, format, arguments);
    va_end(arguments);
    assert(length >= 0 && length <= PRINT_MAX);
    sink->used += length > PRINT_MAX ? PRINT_MAX : (size_t)length;
}

int sink_close(struct sink *sink)
{
    flush(sink, true);
#ifdef HAVE_ZLIB
    if (sink->packing == SINK_GZIP) {
        deflateEnd(&sink->gzip);
    }
#endif
#ifdef HAVE_ZSTD
    ZSTD_freeCStream(sink->zstd);
#endif
    int error = sink->error;
    pages_free(sink, sizeof *sink);
    return error;
}
