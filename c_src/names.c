#include "names.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct name {
    struct name *next;
    char text[];
} name_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* leaf */
static name_t *names;

static bool has_locked(const char *text)
{
    const name_t *name = names;

    while (name != NULL && strcmp(name->text, text) != 0)
        name = name->next;
    return name != NULL;
}

void names_add(const char *text)
{
    pthread_mutex_lock(&lock);
    if (!has_locked(text)) {
        size_t size = strlen(text) + 1;
        name_t *name = malloc(sizeof(*name) + size);

        if (name != NULL) {
            memcpy(name->text, text, size);
            name->next = names;
            names = name;
        }
    }
    pthread_mutex_unlock(&lock);
}

bool names_has(const char *text)
{
    bool found;

    pthread_mutex_lock(&lock);
    found = has_locked(text);
    pthread_mutex_unlock(&lock);
    return found;
}
