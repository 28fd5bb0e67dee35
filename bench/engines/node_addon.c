/* SPDX-License-Identifier: MIT */
/*
 * What run_onnx.js cannot do in JavaScript: call C functions of whatever is preloaded into its process.
 *
 *   start(), stop(), mark(name)   the recorder's (see lib/preload/mark.h); nothing where nobody records
 *   mallopt(parameter, value)     the allocator's: scudo takes Android's cache settings this way
 *
 * Node-API's binary interface is stable and has no library of its own: node brings it along. The few
 * declarations needed stand here, so that no header package is.
 */
#include <dlfcn.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env env, napi_callback_info info);

#define AUTO_LENGTH SIZE_MAX

int napi_create_function(napi_env env, const char *name, size_t length, napi_callback callback,
                         void *data, napi_value *result);
int napi_set_named_property(napi_env env, napi_value object, const char *name, napi_value value);
int napi_get_cb_info(napi_env env, napi_callback_info info, size_t *argument_count,
                     napi_value *arguments, napi_value *self, void **data);
int napi_get_value_string_utf8(napi_env env, napi_value value, char *text, size_t size,
                               size_t *length);
int napi_get_value_int32(napi_env env, napi_value value, int32_t *result);

/* Node calls it by this name. */
__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env,
                                                                          napi_value exports);

static void (*find(const char *name))(void)
{
    void (*function)(void);
    *(void **)&function = dlsym(RTLD_DEFAULT, name);
    return function;
}

static napi_value start(napi_env env, napi_callback_info info)
{
    void (*record_start)(void) = find("larder_record_start");
    (void)env;
    (void)info;
    if (record_start != NULL) {
        record_start();
    }
    return NULL;
}

static napi_value stop(napi_env env, napi_callback_info info)
{
    void (*record_stop)(void) = find("larder_record_stop");
    (void)env;
    (void)info;
    if (record_stop != NULL) {
        record_stop();
    }
    return NULL;
}

static napi_value mark(napi_env env, napi_callback_info info)
{
    void (*note)(const char *);
    char name[64];
    size_t count = 1;
    napi_value argument;
    *(void **)&note = dlsym(RTLD_DEFAULT, "larder_mark");
    if (note != NULL && napi_get_cb_info(env, info, &count, &argument, NULL, NULL) == 0 &&
        count == 1 && napi_get_value_string_utf8(env, argument, name, sizeof name, NULL) == 0) {
        note(name);
    }
    return NULL;
}

static napi_value set_malloc_option(napi_env env, napi_callback_info info)
{
    size_t count = 2;
    napi_value arguments[2];
    int32_t parameter, value;
    if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) == 0 && count == 2 &&
        napi_get_value_int32(env, arguments[0], &parameter) == 0 &&
        napi_get_value_int32(env, arguments[1], &value) == 0) {
        mallopt(parameter, value);
    }
    return NULL;
}

static void add(napi_env env, napi_value exports, const char *name, napi_callback callback)
{
    napi_value function;
    if (napi_create_function(env, name, AUTO_LENGTH, callback, NULL, &function) == 0) {
        napi_set_named_property(env, exports, name, function);
    }
}

napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
    add(env, exports, "start", start);
    add(env, exports, "stop", stop);
    add(env, exports, "mark", mark);
    add(env, exports, "mallopt", set_malloc_option);
    return exports;
}
