/* SPDX-License-Identifier: MIT */
/*
 * Buffers, windows, and the life of threads and processes under the recorder.
 *
 * Each thread appends to a slot of its own, with plain stores: nobody else writes there while it
 * lives. The slot is a shared mapping of a file (record_format.h), so what a thread has appended
 * outlives the process, be it killed, exec'ed away or gone through _exit. A full slot is written to
 * the raw file as one chunk and begins again.
 *
 * A thread that ends writes its slot out and leaves it on the list for the next thread: a program
 * that makes a thread per task does not grow without bound. That runs in a late round of
 * thread-specific destructors; what is freed even later is written as a chunk of one entry.
 *
 * exit, _exit and quick_exit end the recording in order: appending stops, every slot is written
 * out, and the file of slots goes. A thread may be inside an append just then; its one entry may be
 * missed, as if exit had come a moment earlier.
 *
 * A forked child must not write to its parent's slots. It records nothing, or, if told to follow,
 * forgets them and begins files of its own.
 *
 * Lock order: list_lock, then the file's.
 */
#include "record_log.h"

#include "mark.h"
#include "record_file.h"
#include "record_lock.h"
#include "settings.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/*
 * DESTRUCTOR_ROUNDS: how often a thread's end is put off for other keys' destructors, of the four
 * rounds there are. Not all four: a thread that first allocates in a destructor has fewer left, and
 * its buffer would never be handed on.
 */
enum { DESTRUCTOR_ROUNDS = 2, BUFFERS_PAGE = 4096 };

/* In shared memory. */
struct slot {
    struct record_chunk_header header;
    struct record_entry entries[RECORD_SLOT_ENTRIES];
};

_Static_assert(sizeof(struct slot) <= RECORD_SLOT_BYTES, "a slot has its room in the file");

struct buffer {
    struct slot *slot;     /* constant once it is on the list */
    struct buffer *next;   /* the same */
    int destructor_rounds; /* the thread that uses it */
    bool in_use;           /* list_lock */
};

enum thread_phase { THREAD_NEW, THREAD_ATTACHING, THREAD_ATTACHED, THREAD_ENDED };

_Atomic bool record_log_open;
size_t record_log_minimum;

static _Alignas(64) _Atomic uint64_t sequence = 1;

static _Alignas(64) struct buffer *buffers; /* list_lock, like the next two */
static uint32_t slot_count;
static struct buffer *unborn, *unborn_end; /* room for further buffers */
static atomic_flag list_lock = ATOMIC_FLAG_INIT;

static _Atomic bool enabled; /* false before the load, in a forked child and after the finish */
static pthread_key_t thread_key;
static bool with_times, follows_forks; /* constant after the load */

static _Thread_local struct buffer *thread_buffer;
static _Thread_local enum thread_phase thread_phase;
static _Thread_local bool thread_appends;

static bool is_enabled(void)
{
    return atomic_load_explicit(&enabled, memory_order_relaxed);
}

/* list_lock is held. */
static struct buffer *new_buffer(void)
{
    if (unborn == unborn_end) {
        void *page =
            mmap(NULL, BUFFERS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            return NULL;
        unborn = page;
        unborn_end = unborn + BUFFERS_PAGE / sizeof *unborn;
    }
    struct slot *slot = record_file_map_slot(slot_count);
    if (!slot)
        return NULL;
    struct buffer *buffer = unborn++;
    slot->header.slot = slot_count++;
    buffer->slot = slot;
    buffer->next = buffers;
    buffers = buffer;
    return buffer;
}

static struct buffer *take_buffer(void)
{
    record_lock(&list_lock);
    struct buffer *buffer = buffers;
    while (buffer && buffer->in_use)
        buffer = buffer->next;
    if (!buffer)
        buffer = new_buffer();
    if (buffer) {
        buffer->in_use = true;
        buffer->destructor_rounds = 0;
        record_file_begin_chunk(&buffer->slot->header);
    }
    record_unlock(&list_lock);
    return buffer;
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

/* A child of vfork may fill its parent's slot, but only the parent can write it out. */
static __attribute__((noinline)) bool make_room(struct slot *slot)
{
    if (!record_file_is_ours()) {
        record_file_count_lost(1);
        return false;
    }
    (void)record_file_flush(&slot->header);
    return true;
}

static void append_to_slot(struct slot *slot, const struct record_entry *entry)
{
    uint32_t count = slot->header.count;
    if (__builtin_expect(count == RECORD_SLOT_ENTRIES, 0)) {
        if (!make_room(slot))
            return;
        count = 0;
    }
    slot->entries[count] = *entry;
    record_file_publish(&slot->header, count + 1);
}

static void end_thread(void *argument)
{
    struct buffer *buffer = argument;
    /* Come again after the other keys' destructors, which still free. */
    if (++buffer->destructor_rounds < DESTRUCTOR_ROUNDS &&
        pthread_setspecific(thread_key, buffer) == 0)
        return;
    if (record_log_is_open()) {
        struct record_entry done = {.sequence = record_log_next(), .kind = RECORD_THREAD_DONE};
        record_log_append(&done);
    }
    thread_phase = THREAD_ENDED;
    thread_buffer = NULL;
    if (!is_enabled())
        return;
    record_file_flush(&buffer->slot->header);
    record_lock(&list_lock);
    buffer->in_use = false;
    record_unlock(&list_lock);
}

static void append_late(const struct record_entry *entry)
{
    struct {
        struct record_chunk_header header;
        struct record_entry entry;
    } chunk = {.entry = *entry};
    record_file_begin_chunk(&chunk.header);
    chunk.header.slot = RECORD_NO_SLOT;
    chunk.header.count = 1;
    record_file_flush(&chunk.header);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void append_anywhere(const struct record_entry *entry)
{
    if (thread_phase == THREAD_NEW)
        attach_thread();
    if (thread_phase == THREAD_ATTACHED)
        append_to_slot(thread_buffer->slot, entry);
    else if (thread_phase == THREAD_ENDED)
        append_late(entry);
    else
        record_file_count_lost(1);
}

void record_log_append(struct record_entry *entry)
{
    if (thread_phase == THREAD_ATTACHING || !is_enabled())
        return;
    /* A signal handler that allocates interrupted an append of this thread. */
    if (thread_appends) {
        record_file_count_lost(1);
        return;
    }
    thread_appends = true;
    if (with_times)
        entry->time_ns = now_ns();
    if (__builtin_expect(thread_phase == THREAD_ATTACHED, 1)) {
        append_to_slot(thread_buffer->slot, entry);
    } else {
        int error = errno;
        append_anywhere(entry);
        errno = error;
    }
    thread_appends = false;
}

uint64_t record_log_next(void)
{
    /* Relaxed is enough: numbers of one address are ordered by the allocator's own locks, and a
       read-modify-write always takes the latest value. */
    return atomic_fetch_add_explicit(&sequence, 1, memory_order_relaxed);
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
        bool whole = true;
        for (struct buffer *buffer = first ? buffers : NULL; buffer; buffer = buffer->next)
            whole = record_file_flush(&buffer->slot->header) && whole;
        if (first && whole)
            record_file_close_slots();
        record_unlock(&list_lock);
    }
    if (first)
        record_file_report();
    errno = error;
}

/* The only thread there is: locks may be held by threads that do not exist here. */
static void begin_in_child(void)
{
    for (struct buffer *buffer = buffers; buffer; buffer = buffer->next)
        munmap(buffer->slot, RECORD_SLOT_BYTES);
    buffers = NULL;
    slot_count = 0;
    record_unlock(&list_lock);
    record_file_init_in_child();
    if (thread_phase == THREAD_ATTACHED)
        thread_phase = THREAD_NEW;
    thread_buffer = NULL;
    thread_appends = false;
    pthread_setspecific(thread_key, NULL);
}

static void after_fork_in_child(void)
{
    if (follows_forks && is_enabled()) {
        begin_in_child();
        return;
    }
    atomic_store_explicit(&record_log_open, false, memory_order_relaxed);
    atomic_store_explicit(&enabled, false, memory_order_relaxed);
}

static bool is_set(const char *name)
{
    const char *value = getenv(name);
    return value && strcmp(value, "1") == 0;
}

/* Whether the environment names another process as the one to record. */
static bool is_for_another(void)
{
    const char *process = getenv("LARDER_RECORD_PROCESS");
    return process && *process && strtol(process, NULL, 10) != (long)getpid();
}

/* The loader runs this before the program's own code, and before a second thread. */
__attribute__((constructor)) static void load(void)
{
    const char *output = getenv("LARDER_RECORD_OUTPUT");
    if (!output || !*output || is_for_another())
        return;
    if (!record_file_init(output)) {
        fprintf(stderr, "larder-record: LARDER_RECORD_OUTPUT: the path is too long; nothing is "
                        "recorded\n");
        return;
    }
    record_log_minimum = setting_size("LARDER_RECORD_MIN_SIZE", 0);
    with_times = is_set("LARDER_RECORD_TIMES");
    follows_forks = is_set("LARDER_RECORD_FOLLOW");
    if (pthread_key_create(&thread_key, end_thread) != 0 ||
        pthread_atfork(NULL, NULL, after_fork_in_child) != 0 ||
        at_quick_exit(record_log_finish) != 0) {
        fprintf(stderr, "larder-record: no key or handler left for the recorder; nothing is "
                        "recorded\n");
        return;
    }
    atomic_store_explicit(&enabled, true, memory_order_relaxed);
    if (!is_set("LARDER_RECORD_WAIT"))
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
