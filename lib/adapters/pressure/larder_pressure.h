/* SPDX-License-Identifier: MIT */
/*
 * Memory pressure on Linux: trims when the kernel says that processes wait for memory. Header only.
 *
 * The kernel's pressure stall information (PSI; Linux 4.20 or newer with CONFIG_PSI) wakes a poller when all processes together have
 * been stalled on memory for longer than `stall_us` within a window of `window_us`. That is the time to give cached memory back: before
 * the kernel starts to kill, and only when somebody needs it.
 *
 *     int fd = larder_pressure_open(150000, 2000000);
 *     while (larder_pressure_wait(fd, NULL, 15, -1) >= 0) {}     (in a thread of its own)
 *
 * Without the privilege CAP_SYS_RESOURCE, the kernel wants a window that is a multiple of two seconds (Linux 6.5 or newer; older ones
 * refuse). In a container, /proc/pressure/memory is that of the whole machine.
 */
#ifndef LARDER_PRESSURE_H
#define LARDER_PRESSURE_H

#include <larder/larder.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * A descriptor that wakes a poller under pressure, to be closed with close(); or a negative errno: -ENOENT and -EOPNOTSUPP where the
 * kernel has no PSI, -EPERM, -EACCES and -EINVAL where it does not allow it with this window (500000 to 10000000).
 */
static inline int larder_pressure_open(unsigned stall_us, unsigned window_us)
{
    char trigger[64];
    int fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int length = snprintf(trigger, sizeof trigger, "some %u %u", stall_us, window_us);
    if (write(fd, trigger, (size_t)length + 1) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

/*
 * Waits for pressure, at most `timeout_ms` (-1: as long as it takes), and then trims as larder_trim_level() does: `larder` NULL means all
 * instances. Returns 1 after a trim, 0 where there was no pressure or a signal came, or a negative errno.
 */
static inline int larder_pressure_wait(int fd, larder_t *larder, int level, int timeout_ms)
{
    struct pollfd event = {.fd = fd, .events = POLLPRI};
    int ready = poll(&event, 1, timeout_ms);
    if (ready < 0)
        return errno == EINTR ? 0 : -errno;
    if (ready == 0)
        return 0;
    if ((event.revents & POLLPRI) == 0)
        return -EBADF; /* closed, or no trigger: poll() would return at once for ever */
    larder_trim_level(larder, level);
    return 1;
}

#endif
