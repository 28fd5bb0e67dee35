/* SPDX-License-Identifier: MIT */
/*
 * What Debian's libcheck.a, which was built for glibc, wants of a C library and musl does not have: the fortified
 * names of calls that it has, and the registering of cleanups for thread cancellation, which no test uses. The rest of the two
 * C libraries' binary interfaces is alike on x86-64. For tests only: tools/dev.d/musl.sh puts it beside Check.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

int __vfprintf_chk(FILE *file, int flag, const char *format, va_list values);
int __fprintf_chk(FILE *file, int flag, const char *format, ...);
int __printf_chk(int flag, const char *format, ...);
int __vsnprintf_chk(char *text, size_t size, int flag, size_t real_size, const char *format,
                    va_list values);
int __snprintf_chk(char *text, size_t size, int flag, size_t real_size, const char *format, ...);
_Noreturn void __longjmp_chk(sigjmp_buf place, int value);
void __pthread_register_cancel(void *cleanup);
void __pthread_unregister_cancel(void *cleanup);

int __vfprintf_chk(FILE *file, int flag, const char *format, va_list values)
{
    (void)flag;
    return vfprintf(file, format, values);
}

int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int length = __vfprintf_chk(file, flag, format, values);
    va_end(values);
    return length;
}

int __printf_chk(int flag, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int length = __vfprintf_chk(stdout, flag, format, values);
    va_end(values);
    return length;
}

int __vsnprintf_chk(char *text, size_t size, int flag, size_t real_size, const char *format,
                    va_list values)
{
    (void)flag;
    (void)real_size;
    return vsnprintf(text, size, format, values);
}

int __snprintf_chk(char *text, size_t size, int flag, size_t real_size, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int length = __vsnprintf_chk(text, size, flag, real_size, format, values);
    va_end(values);
    return length;
}

void __longjmp_chk(sigjmp_buf place, int value)
{
    siglongjmp(place, value);
}

void __pthread_register_cancel(void *cleanup)
{
    (void)cleanup;
}

void __pthread_unregister_cancel(void *cleanup)
{
    (void)cleanup;
}
