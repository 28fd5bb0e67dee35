/* SPDX-License-Identifier: MIT */
/*
 * The file is opened anew for each chunk: a program that closes all descriptors does no harm, and
 * the recorder holds none that could be mistaken for the program's. A chunk is written whole or cut
 * off again, since a torn one would hide those that follow it.
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
#include <sys/syscall.h>
#include <unistd.h>

static atomic_flag file_lock = ATOMIC_FLAG_INIT;
static char path[PATH_MAX]; /* file_lock; constant once created */
static bool created;        /* file_lock */
static int first_error;     /* file_lock: the first errno of a failed write */

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

bool record_file_is_ours(void)
{
    return getpid() == process;
}

void record_file_begin_chunk(struct record_chunk_header *header)
{
    memset(header, 0, sizeof *header);
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

/* Under a name nobody has yet: after exec the same process id begins again. */
static int create(void)
{
    for (int attempt = 0; attempt < 1000; attempt++) {
        if (attempt == 0)
            snprintf(path, sizeof path, "%s.%d.raw", path_prefix, (int)process);
        else
            snprintf(path, sizeof path, "%s.%d-%d.raw", path_prefix, (int)process, attempt);
        int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (file >= 0 || errno != EEXIST) {
            created = file >= 0;
            return file;
        }
    }
    return -1;
}

static bool write_whole(int file, const void *bytes, size_t count)
{
    off_t start = lseek(file, 0, SEEK_END);
    size_t done = 0;
    while (done < count) {
        ssize_t wrote = write(file, (const char *)bytes + done, count - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            int error = wrote < 0 ? errno : ENOSPC;
            if (start >= 0)
                (void)!ftruncate(file, start);
            errno = error;
            return false;
        }
        done += (size_t)wrote;
    }
    return true;
}

static void write_locked(struct record_chunk_header *header)
{
    header->lost = atomic_load_explicit(&lost, memory_order_relaxed);
    int file = created ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : create();
    size_t bytes = sizeof *header + header->count * sizeof(struct record_entry);
    if (file < 0 || !write_whole(file, header, bytes)) {
        record_file_count_lost(header->count);
        if (first_error == 0)
            first_error = errno;
    }
    if (file >= 0)
        close(file);
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

void record_file_write(struct record_chunk_header *header)
{
    if (header->count == 0 || !record_file_is_ours())
        return;
    int error = errno;
    int cancel_state = forbid_cancel();
    if (record_lock_patiently(&file_lock)) {
        write_locked(header);
        record_unlock(&file_lock);
    } else {
        record_file_count_lost(header->count);
    }
    allow_cancel(cancel_state);
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
                          "larder-record: %s: %s; %llu entries lost, the trace has holes\n", path,
                          strerror(first_error), (unsigned long long)entries);
    else
        length = snprintf(message, sizeof message,
                          "larder-record: process %d: %llu entries lost, the trace has holes\n",
                          (int)process, (unsigned long long)entries);
    if (length > 0)
        (void)!write(STDERR_FILENO, message,
                     (size_t)length < sizeof message ? (size_t)length : sizeof message - 1);
}
