/* SPDX-License-Identifier: MIT */
/*
 * Buffers, windows, and the life of threads and processes under the recorder.
 *
 * Each thread appends to its own buffer, under the buffer's own lock: nobody contends for it except
 * the flush at exit, which must reach the buffers of threads that still run. A full buffer is
 * written as one chunk.
 *
 * A thread that ends flushes its buffer and leaves it on the list for the next thread: a program
 * that makes a thread per task does not grow without bound. The flush runs in a late round of
 * thread-specific destructors; what is freed even later is written as a chunk of one entry.
 *
 * A forked child records nothing: its copy of the buffers holds the parent's entries, and its locks
 * may be held by threads that do not exist there. exit, _exit and quick_exit flush; a fatal signal
 * or exec loses what is in the buffers (at most BUFFER_ENTRIES a thread), never what was written.
 *
 * Lock order: list_lock, then a buffer's lock, then the file's.
 */
#include "record_log.h"

#include "mark.h"
#include "record_file.h"
#include "record_lock.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/*
 * DESTRUCTOR_ROUNDS: how often a thread's end is put off for other keys' destructors, of the four
 * rounds there are. Not all four: a thread that first allocates in a destructor has fewer left, and
 * its buffer would never be handed on.
 */
enum { BUFFER_ENTRIES = 1024, DESTRUCTOR_ROUNDS = 2 };

/* header and entries adjoin, so that a chunk is one write. */
struct buffer {
    struct record_chunk_header header; /* lock */
    struct record_entry entries[BUFFER_ENTRIES];
    atomic_flag lock;
    int destructor_rounds; /* the thread that uses it */
    bool in_use;           /* list_lock */
    struct buffer *next;   /* constant once it is on the list */
};

enum thread_phase { THREAD_NEW, THREAD_ATTACHING, THREAD_ATTACHED, THREAD_ENDED };

_Atomic bool record_log_open;
size_t record_log_minimum;

static _Alignas(64) _Atomic uint64_t sequence = 1;

static _Alignas(64) struct buffer *buffers; /* list_lock */
static atomic_flag list_lock = ATOMIC_FLAG_INIT;

static _Atomic bool enabled; /* false before the load, in a forked child and after the finish */
static pthread_key_t thread_key;

static _Thread_local struct buffer *thread_buffer;
static _Thread_local enum thread_phase thread_phase;
static _Thread_local bool thread_appends;

static bool is_enabled(void)
{
    return atomic_load_explicit(&enabled, memory_order_relaxed);
}

/* list_lock is held. */
static struct buffer *unused_buffer(void)
{
    struct buffer *buffer = buffers;
    while (buffer && buffer->in_use)
        buffer = buffer->next;
    if (buffer)
        return buffer;
    void *pages =
        mmap(NULL, sizeof *buffer, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
    buffer = pages;
    atomic_flag_clear_explicit(&buffer->lock, memory_order_relaxed);
    buffer->next = buffers;
    buffers = buffer;
    return buffer;
}

static struct buffer *take_buffer(void)
{
    record_lock(&list_lock);
    struct buffer *buffer = unused_buffer();
    if (buffer) {
        buffer->in_use = true;
        buffer->destructor_rounds = 0;
        record_file_begin_chunk(&buffer->header);
    }
    record_unlock(&list_lock);
    return buffer;
}

/* buffer->lock is held. */
static void flush(struct buffer *buffer)
{
    record_file_write(&buffer->header);
    buffer->header.count = 0;
}

/* pthread_setspecific may allocate: such a call finds THREAD_ATTACHING and is not recorded. */
static void attach_thread(void)
{
    thread_phase = THREAD_ATTACHING;
    struct buffer *buffer = take_buffer();
    if (!buffer) {
        thread_phase = THREAD_NEW;
        return;
    }
    pthread_setspecific(thread_key, buffer);
    thread_buffer = buffer;
    thread_phase = THREAD_ATTACHED;
}

static void end_thread(void *argument)
{
    struct buffer *buffer = argument;
    /* Come again after the other keys' destructors, which still free. */
    if (++buffer->destructor_rounds < DESTRUCTOR_ROUNDS &&
        pthread_setspecific(thread_key, buffer) == 0)
        return;
    thread_phase = THREAD_ENDED;
    thread_buffer = NULL;
    if (!is_enabled())
        return;
    record_lock(&list_lock);
    record_lock(&buffer->lock);
    flush(buffer);
    record_unlock(&buffer->lock);
    buffer->in_use = false;
    record_unlock(&list_lock);
}

static void append_to_buffer(struct buffer *buffer, const struct record_entry *entry)
{
    record_lock(&buffer->lock);
    /* Asked again under the lock: after the finish nobody would write it out. */
    if (is_enabled()) {
        buffer->entries[buffer->header.count++] = *entry;
        if (buffer->header.count == BUFFER_ENTRIES)
            flush(buffer);
    }
    record_unlock(&buffer->lock);
}

static void append_late(const struct record_entry *entry)
{
    struct {
        struct record_chunk_header header;
        struct record_entry entry;
    } chunk;
    record_file_begin_chunk(&chunk.header);
    chunk.header.count = 1;
    chunk.entry = *entry;
    record_file_write(&chunk.header);
}

void record_log_append(const struct record_entry *entry)
{
    if (thread_phase == THREAD_ATTACHING)
        return;
    /* A signal handler that allocates interrupted an append of this thread: its lock is taken. */
    if (thread_appends) {
        record_file_count_lost(1);
        return;
    }
    int error = errno;
    thread_appends = true;
    if (thread_phase == THREAD_NEW)
        attach_thread();
    if (thread_phase == THREAD_ATTACHED)
        append_to_buffer(thread_buffer, entry);
    else if (thread_phase == THREAD_ENDED)
        append_late(entry);
    else
        record_file_count_lost(1);
    thread_appends = false;
    errno = error;
}

uint64_t record_log_next(void)
{
    /* Relaxed is enough: numbers of one address are ordered by the allocator's own locks, and a
       read-modify-write always takes the latest value. */
    return atomic_fetch_add_explicit(&sequence, 1, memory_order_relaxed);
}

static void flush_all(void)
{
    for (struct buffer *buffer = buffers; buffer; buffer = buffer->next) {
        if (!record_lock_patiently(&buffer->lock)) {
            record_file_count_lost(buffer->header.count);
            continue;
        }
        flush(buffer);
        record_unlock(&buffer->lock);
    }
}

void record_log_finish(void)
{
    /* A vfork child shares this memory but is another process: it must not end our recording. */
    if (!record_file_is_ours())
        return;
    int error = errno;
    atomic_store_explicit(&record_log_open, false, memory_order_relaxed);
    bool first = atomic_exchange_explicit(&enabled, false, memory_order_relaxed);
    /* Who comes second waits here, so that its exit does not cut the first one's flush short. */
    if (record_lock_patiently(&list_lock)) {
        if (first)
            flush_all();
        record_unlock(&list_lock);
    }
    if (first)
        record_file_report();
    errno = error;
}

static void forget_in_child(void)
{
    atomic_store_explicit(&record_log_open, false, memory_order_relaxed);
    atomic_store_explicit(&enabled, false, memory_order_relaxed);
}

static void read_minimum(void)
{
    const char *text = getenv("LARDER_RECORD_MIN_SIZE");
    if (!text || !*text)
        return;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*end != '\0' || text[0] < '0' || text[0] > '9' || errno != 0 || value > SIZE_MAX) {
        fprintf(stderr,
                "larder-record: LARDER_RECORD_MIN_SIZE='%s': expected a number of bytes; "
                "recording all sizes\n",
                text);
        return;
    }
    record_log_minimum = (size_t)value;
}

/* The loader runs this before the program's own code, and before a second thread. */
__attribute__((constructor)) static void load(void)
{
    const char *output = getenv("LARDER_RECORD_OUTPUT");
    if (!output || !*output)
        return;
    if (!record_file_init(output)) {
        fprintf(stderr, "larder-record: LARDER_RECORD_OUTPUT: the path is too long; nothing is "
                        "recorded\n");
        return;
    }
    read_minimum();
    if (pthread_key_create(&thread_key, end_thread) != 0 ||
        pthread_atfork(NULL, NULL, forget_in_child) != 0 || at_quick_exit(record_log_finish) != 0) {
        fprintf(stderr, "larder-record: no key or handler left for the recorder; nothing is "
                        "recorded\n");
        return;
    }
    atomic_store_explicit(&enabled, true, memory_order_relaxed);
    const char *wait = getenv("LARDER_RECORD_WAIT");
    if (!wait || strcmp(wait, "1") != 0)
        larder_record_start();
}

__attribute__((destructor)) static void unload(void)
{
    record_log_finish();
}

EXPORT void larder_record_start(void)
{
    if (!is_enabled() || record_log_is_open())
        return;
    struct record_entry entry = {.sequence = record_log_next(), .kind = RECORD_WINDOW};
    record_log_append(&entry);
    atomic_store_explicit(&record_log_open, true, memory_order_relaxed);
}

EXPORT void larder_record_stop(void)
{
    atomic_store_explicit(&record_log_open, false, memory_order_relaxed);
}

EXPORT void larder_mark(const char *name)
{
    if (!record_log_is_open())
        return;
    struct record_entry entry = {.sequence = record_log_next(), .kind = RECORD_MARK};
    strncpy(entry.of.name, name, sizeof entry.of.name - 1);
    record_log_append(&entry);
}
