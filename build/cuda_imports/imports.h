// Interface of the generated trampolines and bind.c. The offsets in trampoline.inc follow it.

#ifndef TAPER_CUDA_IMPORTS_H
#define TAPER_CUDA_IMPORTS_H

enum taper_cuda_state { TAPER_CUDA_UNTRIED, TAPER_CUDA_OPEN, TAPER_CUDA_MISSING };

// One per archive.
struct taper_cuda_library {
    // File names to ask the system for, in this order; ends with NULL.
    const char *const *file_names;
    void *handle;
    enum taper_cuda_state state;
};

// One per function.
struct taper_cuda_import {
    // Target of the trampoline's jump: at first the code that binds.
    void *target;
    const char *name;
    struct taper_cuda_library *library;
    // Takes the function's place where there is none.
    void *missing;
};

// Saves the argument registers, binds, restores them, jumps. In trampoline.inc.
void taper_cuda_unbound(void);

#endif
