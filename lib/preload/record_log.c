/* SPDX-License-Identifier: MIT */
/*
 * Buffers, files and the life of threads and processes under the recorder.
 *
 * Each thread appends to its own buffer, under the buffer's own lock: nobody contends for it except
 * the flush at exit, which must reach the buffers of threads that still run. A full buffer is
 * written as one chunk. The raw file is opened anew for each chunk, so a program that closes all
 * descriptors does no harm, and the recorder holds none that could be mistaken for the program's.
 *
 * A thread that ends flushes its buffer and leaves it on the list for the next thread: a program
 * that makes a thread per task does not grow without bound. The flush runs in the last round of
 * thread-specific destructors; what is freed even later is written as a chunk of one entry.
 *
 * A forked child records nothing: its copy of the buffers holds the parent's entries, and its locks
 * may be held by threads that do not exist there. _exit and quick_exit flush; a signal or exec
 * loses what is in the buffers (at most BUFFER_ENTRIES a thread), never what was written.
 *
 * Lock order: list_lock, then a buffer's lock, then file_lock.
 */
#include "record_log.h"

#include "mark.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { BUFFER_ENTRIES = 1024, LOCK_PATIENCE = 100000 };

/* header and entries adjoin, so that a chunk is one write. */
struct buffer {
    struct record_chunk_header header; /* guarded by lock, like all below up to next */
    struct record_entry entries[BUFFER_ENTRIES];
    int destructor_rounds;
    atomic_flag lock;
    bool in_use;         /* list_lock */
    struct buffer *next; /* set before it is published; constant after */
};

enum thread_phase { THREAD_NEW, THREAD_ATTACHING, THREAD_ATTACHED, THREAD_ENDED };

_Atomic bool record_log_open;
size_t record_log_minimum;

static _Alignas(64) _Atomic uint64_t sequence = 1;
static _Alignas(64) _Atomic uint64_t lost;

static struct buffer *buffers; /* list_lock */
static atomic_flag list_lock = ATOMIC_FLAG_INIT;

static atomic_flag file_lock = ATOMIC_FLAG_INIT;
static char file_path[PATH_MAX]; /* file_lock; constant once file_created */
static bool file_created;        /* file_lock */
static int file_error;           /* file_lock: the first errno of a failed write */
static char file_prefix[PATH_MAX - 64];

static _Atomic bool enabled; /* false before the load, in a forked child and after the finish */
static pid_t process;
static pthread_key_t thread_key;

static _Thread_local struct buffer *thread_buffer;
static _Thread_local enum thread_phase thread_phase;

/* Acquire pairs with the release in unlock. False: given up, the holder may never return. */
static bool lock_patiently(atomic_flag *lock) {
    for (int tries = 0; tries < LOCK_PATIENCE; tries++) {
        if (!atomic_flag_test_and_set_explicit(lock, memory_order_acquire))
            return true;
        sched_yield();
    }
    return false;
}

static void lock_surely(atomic_flag *lock) {
    while (atomic_flag_test_and_set_explicit(lock, memory_order_acquire))
        sched_yield();
}

static void unlock(atomic_flag *lock) {
    atomic_flag_clear_explicit(lock, memory_order_release);
}

/* Relaxed: a plain count, read when it is reported. */
static void count_lost(uint64_t entries) {
    atomic_fetch_add_explicit(&lost, entries, memory_order_relaxed);
}

/* The first chunk makes the file, under a name nobody has: after exec the process id comes again. */
static int open_file(void) {
    if (file_created)
        return open(file_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    for (int attempt = 0; attempt < 100; attempt++) {
        if (attempt == 0)
            snprintf(file_path, sizeof file_path, "%s.%d.raw", file_prefix, (int)process);
        else
            snprintf(file_path, sizeof file_path, "%s.%d-%d.raw", file_prefix, (int)process,
                     attempt);
        int file = open(file_path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (file >= 0 || errno != EEXIST) {
            file_created = file >= 0;
            return file;
        }
    }
    return -1;
}

/* All of the bytes, or none: a torn chunk would hide those that follow it. */
static bool write_whole(int file, const void *bytes, size_t count) {
    off_t start = lseek(file, 0, SEEK_END);
    size_t done = 0;
    while (done < count) {
        ssize_t wrote = write(file, (const char *)bytes + done, count - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            int error = errno;
            if (start >= 0)
                (void)!ftruncate(file, start);
            errno = error;
            return false;
        }
        done += (size_t)wrote;
    }
    return true;
}

static void write_chunk(struct record_chunk_header *header) {
    uint32_t count = header->count;
    if (count == 0)
        return;
    size_t bytes = sizeof *header + count * sizeof(struct record_entry);
    lock_surely(&file_lock);
    header->lost = atomic_load_explicit(&lost, memory_order_relaxed);
    int file = open_file();
    bool written = file >= 0 && write_whole(file, header, bytes);
    if (!written) {
        count_lost(count);
        if (file_error == 0)
            file_error = errno;
    }
    if (file >= 0)
        close(file);
    unlock(&file_lock);
}

static void begin_header(struct record_chunk_header *header) {
    memset(header, 0, sizeof *header);
    memcpy(header->magic, RECORD_CHUNK_MAGIC, sizeof header->magic);
    header->process = (uint32_t)process;
    header->thread = (uint32_t)syscall(SYS_gettid);
    header->entry_bytes = sizeof(struct record_entry);
}

static struct buffer *take_buffer(void) {
    lock_surely(&list_lock);
    struct buffer *buffer = buffers;
    while (buffer && buffer->in_use)
        buffer = buffer->next;
    if (!buffer) {
        void *pages = mmap(NULL, sizeof *buffer, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages != MAP_FAILED) {
            buffer = pages;
            atomic_flag_clear_explicit(&buffer->lock, memory_order_relaxed);
            buffer->next = buffers;
            buffers = buffer;
        }
    }
    if (buffer) {
        buffer->in_use = true;
        buffer->destructor_rounds = 0;
        begin_header(&buffer->header);
    }
    unlock(&list_lock);
    return buffer;
}

static void end_thread(void *argument) {
    struct buffer *buffer = argument;
    /* Come again after the other keys' destructors, which still free. */
    if (++buffer->destructor_rounds < PTHREAD_DESTRUCTOR_ITERATIONS &&
        pthread_setspecific(thread_key, buffer) == 0)
        return;
    thread_phase = THREAD_ENDED;
    thread_buffer = NULL;
    if (!atomic_load_explicit(&enabled, memory_order_relaxed))
        return;
    lock_surely(&list_lock);
    lock_surely(&buffer->lock);
    write_chunk(&buffer->header);
    buffer->header.count = 0;
    unlock(&buffer->lock);
    buffer->in_use = false;
    unlock(&list_lock);
}

/* pthread_setspecific may allocate: such a call finds THREAD_ATTACHING and is not recorded. */
static void attach_thread(void) {
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

static void append_to_buffer(struct buffer *buffer, const struct record_entry *entry) {
    lock_surely(&buffer->lock);
    /* Asked again under the lock: after the finish nobody would write it out. */
    if (atomic_load_explicit(&enabled, memory_order_relaxed)) {
        buffer->entries[buffer->header.count++] = *entry;
        if (buffer->header.count == BUFFER_ENTRIES) {
            write_chunk(&buffer->header);
            buffer->header.count = 0;
        }
    }
    unlock(&buffer->lock);
}

static void append_late(const struct record_entry *entry) {
    struct {
        struct record_chunk_header header;
        struct record_entry entry;
    } chunk;
    begin_header(&chunk.header);
    chunk.header.count = 1;
    chunk.entry = *entry;
    write_chunk(&chunk.header);
}

void record_log_append(const struct record_entry *entry) {
    int error = errno;
    if (thread_phase == THREAD_NEW)
        attach_thread();
    if (thread_phase == THREAD_ATTACHED)
        append_to_buffer(thread_buffer, entry);
    else if (thread_phase == THREAD_ENDED)
        append_late(entry);
    else if (thread_phase == THREAD_NEW)
        count_lost(1);
    errno = error;
}

uint64_t record_log_next(void) {
    /* Relaxed is enough: numbers of one address are ordered by the allocator's own locks, and a
       read-modify-write always takes the latest value. */
    return atomic_fetch_add_explicit(&sequence, 1, memory_order_relaxed);
}

static void report_losses(void) {
    uint64_t entries = atomic_load_explicit(&lost, memory_order_relaxed);
    if (entries == 0)
        return;
    char message[PATH_MAX + 200];
    int length = snprintf(message, sizeof message,
                          "larder-record: process %d: %llu entries lost (%s%s%s); "
                          "the trace has holes\n",
                          (int)process, (unsigned long long)entries,
                          file_error ? file_path : "no memory for a buffer", file_error ? ": " : "",
                          file_error ? strerror(file_error) : "");
    if (length > 0)
        (void)!write(STDERR_FILENO, message,
                     (size_t)length < sizeof message ? (size_t)length : sizeof message - 1);
}

void record_log_finish(void) {
    /* A vfork child shares this memory but is another process: it must not end our recording. */
    if (!atomic_load_explicit(&enabled, memory_order_relaxed) || getpid() != process)
        return;
    int error = errno;
    atomic_store_explicit(&record_log_open, false, memory_order_relaxed);
    if (!lock_patiently(&list_lock))
        return;
    for (struct buffer *buffer = buffers; buffer; buffer = buffer->next) {
        /* exit may be called in a signal handler that interrupted an append. */
        if (!lock_patiently(&buffer->lock)) {
            count_lost(buffer->header.count);
            continue;
        }
        write_chunk(&buffer->header);
        buffer->header.count = 0;
        unlock(&buffer->lock);
    }
    atomic_store_explicit(&enabled, false, memory_order_relaxed);
    unlock(&list_lock);
    report_losses();
    errno = error;
}

static void forget_in_child(void) {
    atomic_store_explicit(&record_log_open, false, memory_order_relaxed);
    atomic_store_explicit(&enabled, false, memory_order_relaxed);
}

static bool set_prefix(const char *output) {
    size_t used = 0;
    if (output[0] != '/') {
        if (!getcwd(file_prefix, sizeof file_prefix - 1))
            return false;
        used = strlen(file_prefix);
        file_prefix[used++] = '/';
    }
    size_t length = strlen(output);
    if (used + length >= sizeof file_prefix)
        return false;
    memcpy(file_prefix + used, output, length + 1);
    return true;
}

static bool read_environment(void) {
    const char *output = getenv("LARDER_RECORD_OUTPUT");
    if (!output || !*output)
        return false;
    if (!set_prefix(output)) {
        fprintf(stderr, "larder-record: LARDER_RECORD_OUTPUT: the path is too long\n");
        return false;
    }
    const char *minimum = getenv("LARDER_RECORD_MIN_SIZE");
    if (minimum && *minimum) {
        char *end;
        unsigned long long value = strtoull(minimum, &end, 10);
        if (*end != '\0' || minimum[0] == '-') {
            fprintf(stderr,
                    "larder-record: LARDER_RECORD_MIN_SIZE='%s': expected a number of bytes; "
                    "recording all sizes\n",
                    minimum);
            value = 0;
        }
        record_log_minimum = (size_t)value;
    }
    return true;
}

/* The loader runs this before the program's own code, and before a second thread. */
__attribute__((constructor)) static void load(void) {
    if (!read_environment())
        return;
    process = getpid();
    if (pthread_key_create(&thread_key, end_thread) != 0) {
        fprintf(stderr, "larder-record: no thread-specific key left; nothing is recorded\n");
        return;
    }
    pthread_atfork(NULL, NULL, forget_in_child);
    at_quick_exit(record_log_finish);
    atomic_store_explicit(&enabled, true, memory_order_relaxed);
    const char *wait = getenv("LARDER_RECORD_WAIT");
    if (!wait || strcmp(wait, "1") != 0)
        larder_record_start();
}

__attribute__((destructor)) static void unload(void) {
    record_log_finish();
}

EXPORT void larder_record_start(void) {
    if (!atomic_load_explicit(&enabled, memory_order_relaxed) || record_log_is_open())
        return;
    struct record_entry entry = {.sequence = record_log_next(), .kind = RECORD_WINDOW};
    record_log_append(&entry);
    atomic_store_explicit(&record_log_open, true, memory_order_relaxed);
}

EXPORT void larder_record_stop(void) {
    atomic_store_explicit(&record_log_open, false, memory_order_relaxed);
}

EXPORT void larder_mark(const char *name) {
    if (!record_log_is_open())
        return;
    struct record_entry entry = {.sequence = record_log_next(), .kind = RECORD_MARK};
    strncpy(entry.of.name, name, sizeof entry.of.name - 1);
    record_log_append(&entry);
}
