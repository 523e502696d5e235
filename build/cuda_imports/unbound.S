// The code that binds, once for all trampolines.
#define DEFINE_UNBOUND
#include "trampoline.inc"
