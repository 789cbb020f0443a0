#include "stack.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#    define HAS_ASAN 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer)
#        define HAS_ASAN 1
#    endif
#endif
#ifdef HAS_ASAN
#    include <sanitizer/common_interface_defs.h>
#endif

typedef struct {
    char *lowest; /* NULL: not mapped yet */
    size_t size;  /* without the guard page */
} stack_t_;

static _Thread_local stack_t_ second;

#if defined(__x86_64__) || defined(__aarch64__)

bool stack_prepare(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory;

    if (second.lowest != NULL)
        return true;
    size = (size + page - 1) / page * page;
    memory = mmap(NULL, page + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    if (mprotect(memory, page, PROT_NONE) != 0) {
        munmap(memory, page + size);
        return false;
    }
    second.lowest = (char *)memory + page;
    second.size = size;
    return true;
}

#    if defined(__GNUC__) && !defined(__clang__)
#        define EP_NOIPA noipa
#    else
#        define EP_NOIPA noinline
#    endif

/* Nothing of it is known where it is called: that expects no more of the registers than of any call. */
__attribute__((EP_NOIPA)) static void change(char *top, void (*body)(void *), void *argument)
{
#    if defined(__x86_64__)
    __asm__ volatile("movq %%rsp, %%rbx\n\t"
                     "movq %[top], %%rsp\n\t"
                     "callq *%[body]\n\t"
                     "movq %%rbx, %%rsp"
                     : "+D"(argument), [top] "+S"(top), [body] "+d"(body)
                     :
                     : "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2",
                       "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
#    else
    register void *first __asm__("x0") = argument;
    register char *to __asm__("x9") = top;
    register void (*call)(void *) __asm__("x10") = body;

    __asm__ volatile("mov x19, sp\n\t"
                     "mov sp, x9\n\t"
                     "blr x10\n\t"
                     "mov sp, x19"
                     : "+r"(first), "+r"(to), "+r"(call)
                     :
                     : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x11", "x12", "x13", "x14",
                       "x15", "x16", "x17", "x19", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6",
                       "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17",
                       "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28",
                       "v29", "v30", "v31", "cc", "memory");
#    endif
}

#else

bool stack_prepare(size_t size)
{
    (void)size;
    return false;
}

static void change(char *top, void (*body)(void *), void *argument)
{
    (void)top;
    body(argument);
}

#endif

/* Above it are zeros, at which whoever walks the frames stops. */
static char *top(void)
{
    return second.lowest + second.size - 64;
}

#ifdef HAS_ASAN

typedef struct {
    void (*body)(void *);
    void *argument;
    const void *lowest; /* of the thread's own stack */
    size_t size;
} there_t;

static void tell_and_call(void *argument)
{
    there_t *there = argument;

    __sanitizer_finish_switch_fiber(NULL, &there->lowest, &there->size);
    there->body(there->argument);
    __sanitizer_start_switch_fiber(NULL, there->lowest, there->size);
}

void stack_call(void (*body)(void *), void *argument)
{
    there_t there = {body, argument, NULL, 0};
    void *frames = NULL;

    __sanitizer_start_switch_fiber(&frames, second.lowest, second.size);
    change(top(), tell_and_call, &there);
    __sanitizer_finish_switch_fiber(frames, NULL, NULL);
}

#else

void stack_call(void (*body)(void *), void *argument)
{
    change(top(), body, argument);
}

#endif

void *stack_lowest(size_t *size)
{
    *size = second.size;
    return second.lowest;
}
