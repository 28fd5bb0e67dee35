/* SPDX-License-Identifier: MIT */
/*
 * What a program under the recorder may call. liblarder-record.so is loaded with LD_PRELOAD and not
 * linked against, so a program finds these with dlsym(RTLD_DEFAULT, "larder_record_start") or, from
 * Python, ctypes.CDLL(None).larder_record_start(); where the symbol is absent, nobody records.
 *
 * All of them may be called from any thread at any time; none allocates or fails.
 */
#ifndef LARDER_PRELOAD_MARK_H
#define LARDER_PRELOAD_MARK_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Open and close the window that is recorded. With LARDER_RECORD_WAIT=1 in the environment the
 * window is closed at first, so that a model's loading and warm-up stay out; otherwise it is open
 * from the start. A window may be opened again later; both land in the same recording.
 */
void larder_record_start(void);
void larder_record_stop(void);

/*
 * Notes `name` (its first 23 bytes) at this point of the recording: the beginning of an inference,
 * say. Ignored outside a window. The merge can list the marks beside the trace.
 */
void larder_mark(const char *name);

#ifdef __cplusplus
}
#endif

#endif
