/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `angarium user hash`: the hash of a password, for a users file. yescrypt, as crypt(3) chooses and
 * salts it, or keys for SCRAM-SHA-256. The password comes from standard input: on a command line
 * others could see it.
 */
#include "control/cli_user.h"

#include <crypt.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "relay/auth_scram.h"

/* A line without its end. False: none, or it is too long or empty. */
static bool password_read(FILE *in, char password[AUTH_PASSWORD_MAX + 2])
{
    if (fgets(password, AUTH_PASSWORD_MAX + 2, in) == NULL)
        return false;
    size_t size = strcspn(password, "\r\n");
    bool is_whole = password[size] != '\0' || feof(in);
    password[size] = '\0';
    return is_whole && size > 0 && size <= AUTH_PASSWORD_MAX;
}

/* As password_read(); a terminal does not show what is typed. */
static bool password_ask(FILE *in, char password[AUTH_PASSWORD_MAX + 2])
{
    struct termios as_it_was, silent;

    if (tcgetattr(fileno(in), &as_it_was) != 0)
        return password_read(in, password);
    silent = as_it_was;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    fputs("Password: ", stderr);
    tcsetattr(fileno(in), TCSAFLUSH, &silent);
    bool is_read = password_read(in, password);
    tcsetattr(fileno(in), TCSAFLUSH, &as_it_was);
    fputs("\n", stderr);
    return is_read;
}

static bool crypt_make(const char *password, char ret_hash[AUTH_HASH_MAX + 1])
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    struct crypt_data *data = calloc(1, sizeof(*data));
    const char *hash = NULL;

    if (data != NULL && crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof(setting)) != NULL)
        hash = crypt_rn(password, setting, data, (int)sizeof(*data));
    bool is_made = hash != NULL && hash[0] != '*' && strlen(hash) <= AUTH_HASH_MAX;
    if (is_made)
        memcpy(ret_hash, hash, strlen(hash) + 1);
    if (data != NULL)
        explicit_bzero(data, sizeof(*data));
    free(data);
    return is_made;
}

uint32_t user_password_max(bool is_scram)
{
    return is_scram ? AUTH_PASSWORD_MAX : CRYPT_MAX_PASSPHRASE_SIZE - 1;
}

bool user_hash_make(const char *password, bool is_scram, char ret_hash[AUTH_HASH_MAX + 1])
{
    return is_scram ? auth_scram_make(password, ret_hash) : crypt_make(password, ret_hash);
}

bool cli_user_hash(bool is_scram, FILE *in, FILE *out)
{
    char password[AUTH_PASSWORD_MAX + 2] = "", hash[AUTH_HASH_MAX + 1];

    bool is_read = password_ask(in, password) && strlen(password) <= user_password_max(is_scram);
    bool is_made = is_read && user_hash_make(password, is_scram, hash);
    explicit_bzero(password, sizeof(password));
    if (!is_read)
        fprintf(stderr, "angarium: expected a password of 1 to %u octets\n",
                user_password_max(is_scram));
    else if (!is_made)
        fputs("angarium: no randomness or no memory\n", stderr);
    else
        fprintf(out, "%s\n", hash);
    return is_made;
}
