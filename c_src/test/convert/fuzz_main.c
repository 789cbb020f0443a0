/*
 * Stands in for libFuzzer where the compiler has none: knows nothing of coverage, keeps what was
 * long and mutates it. The same inputs each time. Takes -max_total_time=SECONDS, folders with inputs
 * to begin with, or files to run.
 */
#include "test.h"

#include <dirent.h>
#include <stdint.h>
#include <string.h>

enum { POOL = 256, SIZE_MAX_INPUT = 1024, SECONDS = 10 };

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    size_t size;
    uint8_t data[SIZE_MAX_INPUT];
} input_t;

static input_t pool[POOL];
static uint32_t seed = 1;

/* Tags and lengths of the external format among them. */
static uint8_t interesting(void)
{
    static const uint8_t bytes[] = {0,   1,   2,   3,   4,   70,  77,  88,  90,  97,  98,  100, 104,
                                    106, 107, 108, 109, 110, 111, 113, 116, 118, 119, 120, 255};

    return random_below(&seed, 3) == 0 ? (uint8_t)random_next(&seed)
                                       : bytes[random_below(&seed, sizeof bytes)];
}

static void insert(input_t *input, const uint8_t *bytes, size_t size)
{
    const size_t at = random_below(&seed, (uint32_t)input->size + 1);

    if (input->size + size > SIZE_MAX_INPUT)
        return;
    memmove(input->data + at + size, input->data + at, input->size - at);
    memcpy(input->data + at, bytes, size);
    input->size += size;
}

static void cut(input_t *input)
{
    const size_t at = random_below(&seed, (uint32_t)input->size + 1);
    const size_t size = random_below(&seed, (uint32_t)(input->size - at) + 1);

    memmove(input->data + at, input->data + at + size, input->size - at - size);
    input->size -= size;
}

static void mutate(input_t *input)
{
    const input_t *other = &pool[random_below(&seed, POOL)];
    const uint8_t tuple[] = {104, (uint8_t)random_below(&seed, 4)}, byte = interesting();
    const uint8_t list[] = {108, 0, 0, 0, (uint8_t)(1 + random_below(&seed, 3))};
    const uint8_t map[] = {116, 0, 0, 0, (uint8_t)random_below(&seed, 4)};
    size_t from = 0;

    switch (random_below(&seed, 7)) {
    case 0:
        insert(input, tuple, sizeof tuple);
        break;
    case 1:
        insert(input, list, sizeof list);
        break;
    case 2:
        insert(input, map, sizeof map);
        break;
    case 3:
        cut(input);
        break;
    case 4:
        from = random_below(&seed, (uint32_t)other->size + 1);
        insert(input, other->data + from, other->size - from);
        break;
    case 5:
        if (input->size > 0)
            input->data[random_below(&seed, (uint32_t)input->size)] = byte;
        break;
    default:
        insert(input, &byte, 1);
    }
}

static int run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    size_t size = 0;

    if (file == NULL) {
        perror(path);
        return 1;
    }
    size = fread(data, 1, sizeof data, file);
    fclose(file);
    return LLVMFuzzerTestOneInput(data, size);
}

/* Fills the pool with the folder's files, over and over. False: it is no folder. */
static bool read_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry = NULL;
    char name[1024];
    size_t count = 0;

    if (folder == NULL)
        return false;
    while (count < POOL && (entry = readdir(folder)) != NULL) {
        FILE *file = NULL;

        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        file = entry->d_name[0] != '.' ? fopen(name, "rb") : NULL;
        if (file == NULL)
            continue;
        pool[count].size = fread(pool[count].data, 1, SIZE_MAX_INPUT, file);
        count++;
        fclose(file);
    }
    closedir(folder);
    for (size_t i = count; count > 0 && i < POOL; i++)
        pool[i] = pool[i - count];
    return true;
}

int main(int count, char **arguments)
{
    int64_t until = SECONDS;
    unsigned long runs = 0;

    (void)LLVMFuzzerInitialize(&count, &arguments);
    for (int i = 1; i < count; i++)
        if (strncmp(arguments[i], "-max_total_time=", 16) == 0)
            until = atoi(arguments[i] + 16);
        else if (arguments[i][0] != '-' && !read_folder(arguments[i]))
            return run_file(arguments[i]);
    for (until = clock_now() + until * 1000000000; clock_now() < until; runs++) {
        input_t *kept = &pool[random_below(&seed, POOL)], input = *kept;
        const uint8_t head[] = {(uint8_t)random_next(&seed), 131};

        if (input.size < 3)
            input.size = 0, insert(&input, head, sizeof head);
        for (uint32_t i = random_below(&seed, 6) + 1; i > 0; i--)
            mutate(&input);
        (void)LLVMFuzzerTestOneInput(input.data, input.size);
        *kept = input;
    }
    printf("Done %lu runs, without coverage\n", runs);
    return 0;
}
