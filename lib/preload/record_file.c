/* SPDX-License-Identifier: MIT */
/*
 * Files are opened anew for each chunk and slot: a program that closes all descriptors does no harm,
 * and the recorder holds none that could be mistaken for the program's. A chunk is written whole or
 * cut off again, since a torn one would hide those that follow it.
 *
 * A slot's pages are written with zeroes before they are mapped, so a full disk is an error here and
 * not a SIGBUS in the program's malloc later.
 *
 * file_lock is the last in the recorder's lock order (record_log.c).
 */
#include "record_file.h"

#include "record_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_flag file_lock = ATOMIC_FLAG_INIT;
static char raw_path[PATH_MAX]; /* file_lock, like all below; constant once chosen */
static char open_path[PATH_MAX];
static bool chosen, raw_created, open_created;
static int first_error; /* the first errno of what failed */

static char path_prefix[PATH_MAX - 64]; /* constant after record_file_init, like process */
static pid_t process;

static _Atomic uint64_t lost;

bool record_file_init(const char *prefix)
{
    size_t used = 0;
    if (prefix[0] != '/') {
        if (!getcwd(path_prefix, sizeof path_prefix - 1))
            return false;
        used = strlen(path_prefix);
        path_prefix[used++] = '/';
    }
    size_t length = strlen(prefix);
    if (used + length >= sizeof path_prefix)
        return false;
    memcpy(path_prefix + used, prefix, length + 1);
    process = getpid();
    return true;
}

void record_file_init_in_child(void)
{
    process = getpid();
    record_unlock(&file_lock); /* its holder may be a thread that does not exist here */
    chosen = raw_created = open_created = false;
    first_error = 0;
    atomic_store_explicit(&lost, 0, memory_order_relaxed);
}

bool record_file_is_ours(void)
{
    return getpid() == process;
}

void record_file_begin_chunk(struct record_chunk_header *header)
{
    memcpy(header->magic, RECORD_CHUNK_MAGIC, sizeof header->magic);
    header->process = (uint32_t)process;
    header->thread = (uint32_t)syscall(SYS_gettid);
    header->entry_bytes = sizeof(struct record_entry);
}

/* Relaxed: a plain count, read when it is reported. */
void record_file_count_lost(uint64_t entries)
{
    atomic_fetch_add_explicit(&lost, entries, memory_order_relaxed);
}

/* A name nobody has yet: after exec the same process id begins again. file_lock is held. */
static bool choose_paths(void)
{
    for (int attempt = 0; !chosen && attempt < 1000; attempt++) {
        char number[32] = "";
        if (attempt != 0)
            snprintf(number, sizeof number, "-%d", attempt);
        snprintf(raw_path, sizeof raw_path, "%s.%d%s" RECORD_RAW_SUFFIX, path_prefix, (int)process,
                 number);
        snprintf(open_path, sizeof open_path, "%s.%d%s" RECORD_OPEN_SUFFIX, path_prefix,
                 (int)process, number);
        chosen = access(raw_path, F_OK) != 0 && access(open_path, F_OK) != 0;
    }
    errno = chosen ? 0 : EEXIST;
    return chosen;
}

/* file_lock is held. */
static int open_file(const char *path, int flags, bool *created)
{
    if (!choose_paths())
        return -1;
    int file = open(path, flags | O_CLOEXEC | (*created ? 0 : O_CREAT | O_EXCL), 0644);
    *created = *created || file >= 0;
    return file;
}

/* file_lock is held. */
static void note_error(void)
{
    if (first_error == 0)
        first_error = errno;
}

/* A write may stop short of a full disk: then nothing of it stays. file_lock is held. */
static bool write_whole(int file, struct iovec *parts, int part_count)
{
    off_t start = lseek(file, 0, SEEK_END);
    while (part_count > 0) {
        ssize_t wrote = writev(file, parts, part_count);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            int error = wrote < 0 ? errno : ENOSPC;
            if (start >= 0)
                (void)!ftruncate(file, start);
            errno = error;
            return false;
        }
        size_t done = (size_t)wrote;
        for (; part_count > 0 && done >= parts->iov_len; parts++, part_count--)
            done -= parts->iov_len;
        if (part_count > 0) {
            parts->iov_base = (char *)parts->iov_base + done;
            parts->iov_len -= done;
        }
    }
    return true;
}

/* The count is read once: at the end of the process the owner may still be appending. */
static bool flush_locked(struct record_chunk_header *header)
{
    struct record_chunk_header written = *header;
    /* acquire: pairs with record_file_publish */
    written.count = atomic_load_explicit((_Atomic uint32_t *)&header->count, memory_order_acquire);
    written.lost = atomic_load_explicit(&lost, memory_order_relaxed);
    if (written.count == 0)
        return true;
    struct iovec parts[] = {{&written, sizeof written},
                            {header + 1, written.count * sizeof(struct record_entry)}};
    int file = open_file(raw_path, O_WRONLY | O_APPEND, &raw_created);
    bool whole = file >= 0 && write_whole(file, parts, 2);
    if (!whole) {
        note_error();
        record_file_count_lost(written.count);
    }
    if (file >= 0)
        close(file);
    record_file_publish(header, 0); /* first: killed in between, the slot is told to be empty */
    header->serial++;
    return whole;
}

/* file_lock is held. */
static void *map_slot_locked(uint32_t slot)
{
    static const char zeroes[4096];
    off_t start = (off_t)slot * RECORD_SLOT_BYTES;
    void *mapping = MAP_FAILED;
    int file = open_file(open_path, O_RDWR, &open_created);
    int done = 0;
    while (file >= 0 && done < RECORD_SLOT_BYTES) {
        ssize_t wrote = pwrite(file, zeroes, sizeof zeroes, start + done);
        if (wrote <= 0 && errno != EINTR)
            break;
        done += wrote > 0 ? (int)wrote : 0;
    }
    if (file >= 0 && done >= RECORD_SLOT_BYTES)
        mapping = mmap(NULL, RECORD_SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       file, start);
    if (mapping == MAP_FAILED)
        note_error();
    if (file >= 0)
        close(file);
    return mapping == MAP_FAILED ? NULL : mapping;
}

/*
 * open, write and close are cancellation points; malloc and free must not become ones. Android has
 * no cancellation.
 */
static int forbid_cancel(void)
{
    int before = 0;
#ifdef PTHREAD_CANCEL_DISABLE
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
#endif
    return before;
}

static void allow_cancel(int before)
{
#ifdef PTHREAD_CANCEL_DISABLE
    pthread_setcancelstate(before, NULL);
#else
    (void)before;
#endif
}

bool record_file_flush(struct record_chunk_header *header)
{
    if (!record_file_is_ours())
        return false;
    bool whole = false;
    int error = errno;
    int cancel_state = forbid_cancel();
    if (record_lock_patiently(&file_lock)) {
        whole = flush_locked(header);
        record_unlock(&file_lock);
    } else {
        record_file_count_lost(header->count);
        record_file_publish(header, 0);
    }
    allow_cancel(cancel_state);
    errno = error;
    return whole;
}

void *record_file_map_slot(uint32_t slot)
{
    void *mapping = NULL;
    int error = errno;
    int cancel_state = forbid_cancel();
    if (record_lock_patiently(&file_lock)) {
        mapping = map_slot_locked(slot);
        record_unlock(&file_lock);
    }
    allow_cancel(cancel_state);
    errno = error;
    return mapping;
}

void record_file_close_slots(void)
{
    int error = errno;
    if (record_file_is_ours() && open_created)
        unlink(open_path);
    errno = error;
}

void record_file_report(void)
{
    uint64_t entries = atomic_load_explicit(&lost, memory_order_relaxed);
    if (entries == 0)
        return;
    char message[PATH_MAX + 200];
    int length;
    if (first_error)
        length = snprintf(message, sizeof message,
                          "larder-record: %s: %s; %llu entries lost, the trace has holes\n",
                          raw_path, strerror(first_error), (unsigned long long)entries);
    else
        length = snprintf(message, sizeof message,
                          "larder-record: process %d: %llu entries lost, the trace has holes\n",
                          (int)process, (unsigned long long)entries);
    if (length > 0)
        (void)!write(STDERR_FILENO, message,
                     (size_t)length < sizeof message ? (size_t)length : sizeof message - 1);
}
