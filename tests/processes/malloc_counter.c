// malloc_counter.c - counts what a program allocates; LD_PRELOAD (test_no_malloc.py).
#include <stddef.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

static _Atomic long count;

long mallocs(void) { return count; }
void* malloc(size_t bytes) { return ++count, __libc_malloc(bytes); }
void* calloc(size_t n, size_t bytes) { return ++count, __libc_calloc(n, bytes); }
void* realloc(void* memory, size_t bytes) { return ++count, __libc_realloc(memory, bytes); }
void* memalign(size_t alignment, size_t bytes) { return ++count, __libc_memalign(alignment, bytes); }
void* aligned_alloc(size_t alignment, size_t bytes) { return ++count, __libc_memalign(alignment, bytes); }
