#include "names.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct name {
    struct name *next;
    char text[];
} name_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* leaf */
static name_t *names;
static atomic_uint count;

static bool has_locked(const char *text, size_t length)
{
    const name_t *name = names;

    while (name != NULL && (strncmp(name->text, text, length) != 0 || name->text[length] != 0))
        name = name->next;
    return name != NULL;
}

static bool has(const char *text, size_t length)
{
    bool found;

    if (atomic_load(&count) == 0)
        return false;
    pthread_mutex_lock(&lock);
    found = has_locked(text, length);
    pthread_mutex_unlock(&lock);
    return found;
}

void names_add(const char *text)
{
    pthread_mutex_lock(&lock);
    if (!has_locked(text, strlen(text))) {
        size_t size = strlen(text) + 1;
        name_t *name = malloc(sizeof(*name) + size);

        if (name != NULL) {
            memcpy(name->text, text, size);
            name->next = names;
            names = name;
            atomic_fetch_add(&count, 1);
        }
    }
    pthread_mutex_unlock(&lock);
}

bool names_has(const char *text)
{
    return has(text, strlen(text));
}

bool names_has_package(const char *module)
{
    return has(module, strcspn(module, "."));
}

unsigned names_count(void)
{
    return atomic_load(&count);
}
