/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jansson takes a text apart in memory of its own, which it gives back as it is. While a thread has
 * something secret in it, what it gives back is wiped.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "control/http_serve.h"

static _Thread_local bool is_secret;

static void wiping_free(void *memory)
{
    if (is_secret && memory != NULL)
        explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}

void http_secret_init(void)
{
    json_set_alloc_funcs(malloc, wiping_free);
}

void http_secret_begin(void)
{
    is_secret = true;
}

void http_secret_end(void)
{
    is_secret = false;
}
