/* Runs the kernel it is linked with: `program INPUT OUTPUT`. What writes INPUT and reads OUTPUT is foreign_cpus.py.

   INPUT is 64-bit numbers: threads, bytes of workspace, number of buffers, then for each buffer its bytes and its kind; then the
   contents of the given buffers. OUTPUT gets the contents of the given buffers and of the outputs, in order.

   Every buffer ends as near to a page without access rights as its alignment allows, so that an access further out is a
   segmentation fault. The bytes between it and such pages are filled with a pattern and checked afterwards, a different one
   for each kind of buffer: a copy of bytes that should not have been read does not look like the pattern. Outputs and
   workspace begin with it too, and as a floating-point number it is huge (or NaN): what is left of it in a result is seen. */

#include <float.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int32_t kernel_function(void **buffers, void *workspace, int32_t threads, volatile int32_t *abort);

kernel_function kernel;
__attribute__((weak)) kernel_function kernel_prepare;

void ansor_parallel(void (*body)(void *, int64_t, int64_t, int64_t), void *context, int64_t iterations, int32_t threads);
void ansor_pool_stop(void);

enum { PAGE = 1 << 16, ALIGNMENT = 64 }; /* 64 KiB: the largest pages that Linux has on these CPUs */
#ifdef __x86_64__
enum { READABLE = 4096 }; /* bytes after a buffer: in AVX's masked loads QEMU also reads the lanes that are masked off */
#else
enum { READABLE = 0 };
#endif
enum { GIVEN, OUTPUT, PREPARED, WORKSPACE };

struct buffer {
    int64_t size, kind;
    unsigned char *body, *data, *end;
};

struct arrivals {
    int wanted;
    atomic_int found;
};

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t read_number(FILE *file) {
    int64_t number;
    if (fread(&number, sizeof number, 1, file) != 1)
        fail("the input file is too short");
    return number;
}

static int pattern(const struct buffer *buffer) { return 0xFF - (int)buffer->kind; }

static void allocate(struct buffer *buffer) {
    size_t bytes = ((buffer->size + READABLE) / PAGE + 1) * PAGE;
    unsigned char *pages = mmap(NULL, bytes + 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        fail("no memory for a buffer of %lld bytes", (long long)buffer->size);
    buffer->body = (unsigned char *)(((uintptr_t)pages / PAGE + 2) * PAGE);
    buffer->end = buffer->body + bytes;
    buffer->data = buffer->body + (bytes - READABLE - buffer->size) / ALIGNMENT * ALIGNMENT;
    if (mprotect(buffer->body, bytes, PROT_READ | PROT_WRITE) != 0)
        fail("a buffer cannot be made accessible");
    memset(buffer->body, pattern(buffer), bytes);
}

static void check_surroundings(const struct buffer *buffer, const char *name, int number) {
    for (const unsigned char *byte = buffer->body; byte < buffer->end; byte++)
        if ((byte < buffer->data || byte >= buffer->data + buffer->size) && *byte != pattern(buffer))
            fail("out of bounds: byte %lld of %s %d was written, which has %lld bytes", (long long)(byte - buffer->data), name,
                 number, (long long)buffer->size);
}

/* A chunk for each thread, which waits until all of them have begun: it ends only if there are so many threads. */
static void arrive(void *context, int64_t low, int64_t high, int64_t participant) {
    struct arrivals *arrivals = context;
    if (participant >= arrivals->wanted || high != low + 1)
        fail("participant %d of %d has iterations %d to %d", (int)participant, arrivals->wanted, (int)low, (int)high);
    atomic_fetch_add(&arrivals->found, 1);
    while (atomic_load(&arrivals->found) < arrivals->wanted)
        sched_yield();
}

static void check_threads(int wanted) {
    for (int round = 0; round < 20; round++) {
        struct arrivals arrivals = {.wanted = wanted};
        ansor_parallel(arrive, &arrivals, wanted, wanted);
        if (round == 9)
            usleep(2000); /* the workers sleep */
    }
}

int main(int count, char **words) {
    FILE *input = count == 3 ? fopen(words[1], "rb") : NULL, *output = count == 3 ? fopen(words[2], "wb") : NULL;
    if (!input || !output)
        fail("usage: program INPUT OUTPUT");
    int threads = (int)read_number(input);
    struct buffer workspace = {.size = read_number(input), .kind = WORKSPACE};
    int buffers = (int)read_number(input);
    struct buffer table[buffers + 1];
    void *addresses[buffers + 1];
    allocate(&workspace);
    for (int i = 0; i < buffers; i++) {
        table[i].size = read_number(input);
        table[i].kind = read_number(input);
        allocate(&table[i]);
        addresses[i] = table[i].data;
    }
    for (int i = 0; i < buffers; i++)
        if (table[i].kind == GIVEN && fread(table[i].data, 1, table[i].size, input) != (size_t)table[i].size)
            fail("the input file is too short");

    check_threads(threads);
    volatile int32_t abort_flag = 0;
    int32_t status = kernel_prepare ? kernel_prepare(addresses, workspace.data, threads, &abort_flag) : 0;
    if (status == 0)
        status = kernel(addresses, workspace.data, threads, &abort_flag);
    if (status != 0)
        fail("the kernel returned %d", (int)status);
    volatile float smallest = FLT_MIN;
    if (smallest * 0.5f == 0)
        fail("the kernel left the mode in which denormals are flushed");

    check_surroundings(&workspace, "workspace of threads 1 to", threads);
    for (int i = 0; i < buffers; i++) {
        check_surroundings(&table[i], "buffer", i);
        if (table[i].kind != PREPARED && fwrite(table[i].data, 1, table[i].size, output) != (size_t)table[i].size)
            fail("the output file cannot be written");
    }
    ansor_pool_stop();
    return fclose(output) == 0 ? 0 : 1;
}
