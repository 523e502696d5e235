// Finds the real function behind a trampoline, at its first call.
//
// The symbols of CUDA's libraries are linked from archives of trampolines, so that one binary runs
// on machines with and without CUDA. A library that is missing is an answer, not a crash: every
// function of it returns a status that says so, and the reason is kept for whoever prints the error.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "imports.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// One line for each library or function that was not found, in the order of their first use.
static char reasons[2048];

static void give_reason(const char *format, const char *subject, const char *detail) {
    size_t used = strlen(reasons);
    snprintf(reasons + used, sizeof reasons - used, format, used > 0 ? "\n" : "", subject, detail);
}

// Serves a library by one that was opened elsewhere, unless it is open already. A function that was missing before stays
// missing.
void taper_cuda_serve(struct taper_cuda_library *library, void *handle) {
    pthread_mutex_lock(&lock);
    if (library->state != TAPER_CUDA_OPEN) {
        library->handle = handle;
        library->state = TAPER_CUDA_OPEN;
    }
    pthread_mutex_unlock(&lock);
}

static void open_library(struct taper_cuda_library *library) {
    library->state = TAPER_CUDA_MISSING;
    const char *detail = "";
    for (size_t i = 0; library->file_names[i] != NULL; i++) {
        library->handle = dlopen(library->file_names[i], RTLD_NOW | RTLD_LOCAL);
        if (library->handle != NULL) {
            library->state = TAPER_CUDA_OPEN;
            return;
        }
        // The first name is the one that an installation provides.
        if (i == 0) {
            static char first[512];
            const char *error = dlerror();
            snprintf(first, sizeof first, "%s", error != NULL ? error : "no reason was given");
            detail = first;
        }
    }
    give_reason("%s`%s` cannot be loaded: %s", library->file_names[0], detail);
}

// Called by the trampolines' assembly: the address to jump to, never NULL.
void *taper_cuda_bind(struct taper_cuda_import *import) {
    struct taper_cuda_library *library = import->library;
    pthread_mutex_lock(&lock);
    if (library->state == TAPER_CUDA_UNTRIED) {
        open_library(library);
    }
    void *target = NULL;
    if (library->state == TAPER_CUDA_OPEN) {
        target = dlsym(library->handle, import->name);
        if (target == NULL && import->target == taper_cuda_unbound) {
            struct link_map *file = NULL;
            int known = dlinfo(library->handle, RTLD_DI_LINKMAP, &file) == 0;
            give_reason("%s`%s` has no `%s`: it is older than CUDA 12.1",
                        known ? file->l_name : library->file_names[0], import->name);
        }
    }
    if (target == NULL) {
        target = import->missing;
    }
    // Other threads may be jumping through this word; its old target stays valid.
    __atomic_store_n(&import->target, target, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    return target;
}

// Copies the reasons, ended by a NUL, and returns their length. Empty when nothing was missing.
size_t taper_cuda_missing(char *text, size_t capacity) {
    pthread_mutex_lock(&lock);
    size_t length = 0;
    if (capacity > 0) {
        snprintf(text, capacity, "%s", reasons);
        length = strlen(text);
    }
    pthread_mutex_unlock(&lock);
    return length;
}
