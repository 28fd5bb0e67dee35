/* SPDX-License-Identifier: MIT */
/*
 * Lines from a plain or compressed file: see input.h.
 *
 * Two buffers. `raw` holds bytes as read from the file, `text` what the decoder made of them
 * (plain files are read into `text` at once). Lines are handed out of `text` in place: the line
 * end becomes the NUL, and what is left of a line at the end of the buffer moves to its front
 * before more is read.
 */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "decoder.h"
#include "pages.h"

#define RAW_BYTES 65536u
#define TEXT_BYTES 262144u

/* A small file must not take much memory: beyond the first 64 MiB, a limit on what its bytes become. */
#define EXPANSION_FREE (UINT64_C(64) << 20)
#define EXPANSION_MAX 4096u

struct input {
    const char *path; /* the caller's */
    int fd;
    bool file_ended;
    bool cut;
    bool long_lines; /* are shortened, not refused */
    bool compressed;
    struct decoder decoder;
    uint64_t line_number;
    uint64_t raw_bytes, text_bytes; /* of a compressed file: read so far, and what they became */
    size_t raw_start, raw_end;
    size_t text_start, text_end;
    unsigned char raw[RAW_BYTES];
    char shortened[INPUT_LINE_MAX + 1];
    char text[TEXT_BYTES + 1]; /* one more: the NUL after a last line without an end */
};

static ssize_t read_some(const struct input *input, void *buffer, size_t size)
{
    ssize_t got;
    do {
        got = read(input->fd, buffer, size);
    } while (got < 0 && errno == EINTR);
    return got;
}

static int fail_read(const struct input *input, char *why, size_t why_size)
{
    int error = errno;
    snprintf(why, why_size, "%s: cannot be read: %s", input->path, strerror(error));
    return -error;
}

/* Fills `raw` with the first bytes of the file, enough to tell its kind. */
static int read_head(struct input *input, char *why, size_t why_size)
{
    while (input->raw_end < 4 && !input->file_ended) {
        ssize_t got = read_some(input, input->raw + input->raw_end, RAW_BYTES - input->raw_end);
        if (got < 0) {
            return fail_read(input, why, why_size);
        }
        input->raw_end += (size_t)got;
        input->file_ended = got == 0;
    }
    return 0;
}

static int open_decoder(struct input *input, char *why, size_t why_size)
{
    static const unsigned char gzip[] = {0x1f, 0x8b}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd},
                               zip[] = {'P', 'K', 3, 4}, xz[] = {0xfd, '7', 'z', 'X'};
    int result;
    const char *name;
    if (input->raw_end >= sizeof zip && memcmp(input->raw, zip, sizeof zip) == 0) {
        snprintf(why, why_size,
                 "%s: is a zip archive, of which only the text inside is a trace: unpack it with "
                 "`unzip` first",
                 input->path);
        return -EINVAL;
    }
    if (input->raw_end >= sizeof xz && memcmp(input->raw, xz, sizeof xz) == 0) {
        snprintf(why, why_size,
                 "%s: is compressed with xz, which is not read here: unpack it with `xz -d` first",
                 input->path);
        return -EINVAL;
    }
    if (input->raw_end >= sizeof gzip && memcmp(input->raw, gzip, sizeof gzip) == 0) {
        name = "gzip";
        result = decoder_open_gzip(&input->decoder);
    } else if (input->raw_end >= sizeof zstd && memcmp(input->raw, zstd, sizeof zstd) == 0) {
        name = "zstd";
        result = decoder_open_zstd(&input->decoder);
    } else {
        memcpy(input->text, input->raw, input->raw_end);
        input->text_end = input->raw_end;
        return 0;
    }
    if (result == -ENOTSUP) {
        snprintf(why, why_size,
                 "%s: is compressed with %s, which this build cannot read: unpack it with `%s -d` "
                 "first",
                 input->path, name, name);
        return result;
    }
    if (result != 0) {
        snprintf(why, why_size, "%s: no memory to read it with", input->path);
        return result;
    }
    input->compressed = true;
    input->file_ended = false; /* whether it may end there is for the decoder to say */
    return 0;
}

int input_open(struct input **out, const char *path, char *why, size_t why_size)
{
    struct input *input = pages_allocate(sizeof *input);
    if (input == NULL) {
        snprintf(why, why_size, "%s: no memory to read it with", path);
        return -ENOMEM;
    }
    input->path = strcmp(path, "-") == 0 ? "standard input" : path;
    input->fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    int result = 0;
    if (input->fd < 0 || fstat(input->fd, &status) != 0) {
        result = -errno;
        snprintf(why, why_size, "%s: cannot be opened: %s; check the path", input->path,
                 strerror(-result));
    } else if (S_ISDIR(status.st_mode)) {
        result = -EISDIR;
        snprintf(why, why_size, "%s: is a directory: name a trace file in it", input->path);
    } else {
        result = read_head(input, why, why_size);
        result = result == 0 ? open_decoder(input, why, why_size) : result;
    }
    if (result != 0) {
        input_close(input);
        return result;
    }
    *out = input;
    return 0;
}

static int refill_plain(struct input *input, char *why, size_t why_size)
{
    ssize_t got = read_some(input, input->text + input->text_end, TEXT_BYTES - input->text_end);
    if (got < 0) {
        return fail_read(input, why, why_size);
    }
    input->text_end += (size_t)got;
    input->file_ended = got == 0;
    return 0;
}

static int refill_raw(struct input *input, char *why, size_t why_size)
{
    ssize_t got = read_some(input, input->raw, RAW_BYTES);
    if (got < 0) {
        return fail_read(input, why, why_size);
    }
    input->raw_start = 0;
    input->raw_end = (size_t)got;
    if (got == 0 && !input->decoder.at_boundary) {
        snprintf(why, why_size,
                 "%s: the %s data ends early, after line %llu: copy or download the file again",
                 input->path, input->decoder.name, (unsigned long long)input->line_number);
        return -EINVAL;
    }
    input->file_ended = got == 0;
    return 0;
}

/* One call of the decoder; *made tells how much text it added. */
static int decode_some(struct input *input, size_t *made, char *why, size_t why_size)
{
    size_t used;
    const char *problem = NULL;
    int result = input->decoder.decode(&input->decoder, input->raw + input->raw_start,
                                       input->raw_end - input->raw_start, &used,
                                       (unsigned char *)input->text + input->text_end,
                                       TEXT_BYTES - input->text_end, made, &problem);
    if (result != 0) {
        snprintf(why, why_size,
                 "%s: the %s data is damaged after line %llu (%s): copy or download the file again",
                 input->path, input->decoder.name, (unsigned long long)input->line_number, problem);
        return result;
    }
    input->raw_start += used;
    input->text_end += *made;
    input->raw_bytes += used;
    input->text_bytes += *made;
    if (input->text_bytes > EXPANSION_FREE + EXPANSION_MAX * input->raw_bytes) {
        snprintf(why, why_size,
                 "%s: the %s data expands %u-fold and more, as no trace does: if it is one, unpack "
                 "it with `%s -d` first",
                 input->path, input->decoder.name, EXPANSION_MAX, input->decoder.name);
        return -EINVAL;
    }
    return 0;
}

/*
 * Adds text behind text_end, or sets file_ended. The decoder is asked before the file is read: it
 * may hold text that did not fit the last time.
 */
static int refill_decoded(struct input *input, char *why, size_t why_size)
{
    for (;;) {
        size_t made;
        int result = decode_some(input, &made, why, why_size);
        if (result != 0 || made > 0) {
            return result;
        }
        if (input->raw_start == input->raw_end) {
            result = refill_raw(input, why, why_size);
            if (result != 0 || input->file_ended) {
                return result;
            }
        }
    }
}

/* Makes the rest of the current line available; file_ended says that there is no more. */
static int refill(struct input *input, char *why, size_t why_size)
{
    size_t left = input->text_end - input->text_start;
    memmove(input->text, input->text + input->text_start, left);
    input->text_start = 0;
    input->text_end = left;
    return input->compressed ? refill_decoded(input, why, why_size)
                             : refill_plain(input, why, why_size);
}

void input_allow_long_lines(struct input *input)
{
    input->long_lines = true;
}

/* Drops the rest of a line that was too long, up to and with its end. */
static int skip_line(struct input *input, char *why, size_t why_size)
{
    for (;;) {
        char *start = input->text + input->text_start;
        size_t left = input->text_end - input->text_start;
        char *end = memchr(start, '\n', left);
        input->text_start += end != NULL ? (size_t)(end - start) + 1 : left;
        if (end != NULL || input->file_ended) {
            return 0;
        }
        int result = refill(input, why, why_size);
        if (result != 0) {
            return result;
        }
    }
}

/* A line of which the beginning is enough. */
static int shorten_line(struct input *input, char **line, size_t *length, char *why,
                        size_t why_size)
{
    memcpy(input->shortened, input->text + input->text_start, INPUT_LINE_MAX);
    input->shortened[INPUT_LINE_MAX] = '\0';
    *line = input->shortened;
    *length = INPUT_LINE_MAX;
    int result = skip_line(input, why, why_size);
    return result == 0 ? 1 : result;
}

int input_line(struct input *input, char **line, size_t *length, char *why, size_t why_size)
{
    size_t searched = 0;
    char *end;
    for (;;) {
        char *start = input->text + input->text_start;
        size_t left = input->text_end - input->text_start;
        end = memchr(start + searched, '\n', left - searched);
        if (end != NULL || input->file_ended || left > INPUT_LINE_MAX) {
            break;
        }
        searched = left;
        int result = refill(input, why, why_size);
        if (result != 0) {
            return result;
        }
    }
    if (end == NULL && input->text_start == input->text_end) {
        return 0;
    }
    input->line_number++;
    input->cut = end == NULL;
    if (end == NULL) {
        end = input->text + input->text_end;
    }
    *line = input->text + input->text_start;
    *length = (size_t)(end - *line);
    if (*length > INPUT_LINE_MAX && input->long_lines) {
        return shorten_line(input, line, length, why, why_size);
    }
    if (*length > INPUT_LINE_MAX) {
        snprintf(why, why_size,
                 "%s:%llu: a line of more than %d bytes: not a text trace; name the file that a "
                 "recorder wrote",
                 input->path, (unsigned long long)input->line_number, INPUT_LINE_MAX);
        return -EINVAL;
    }
    input->text_start += *length + (input->cut ? 0 : 1);
    if (*length > 0 && end[-1] == '\r') {
        --*length;
    }
    (*line)[*length] = '\0';
    return 1;
}

int input_peek(struct input *input, size_t size, const char **bytes, size_t *got, char *why,
               size_t why_size)
{
    while (input->text_end - input->text_start < size && !input->file_ended) {
        int result = refill(input, why, why_size);
        if (result != 0) {
            return result;
        }
    }
    size_t left = input->text_end - input->text_start;
    *bytes = input->text + input->text_start;
    *got = left < size ? left : size;
    return 0;
}

int input_read(struct input *input, void *bytes, size_t size, size_t *got, char *why,
               size_t why_size)
{
    const char *next;
    size_t left;
    int result = input_peek(input, 1, &next, &left, why, why_size);
    if (result != 0) {
        return result;
    }
    left = input->text_end - input->text_start;
    *got = left < size ? left : size;
    memcpy(bytes, next, *got);
    input->text_start += *got;
    return 0;
}

uint64_t input_line_number(const struct input *input)
{
    return input->line_number;
}

bool input_line_was_cut(const struct input *input)
{
    return input->cut;
}

const char *input_path(const struct input *input)
{
    return input->path;
}

void input_close(struct input *input)
{
    if (input->compressed) {
        input->decoder.close(&input->decoder);
    }
    if (input->fd >= 0) {
        close(input->fd);
    }
    pages_free(input, sizeof *input);
}
