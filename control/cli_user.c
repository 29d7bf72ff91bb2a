/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `angarium user hash`: the hash of a password, for a users file. yescrypt, as crypt(3) chooses and
 * salts it. The password comes from standard input: on a command line others could see it.
 */
#include "control/cli_user.h"

#include <crypt.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "relay/auth.h"

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

bool cli_user_hash(FILE *in, FILE *out)
{
    char password[AUTH_PASSWORD_MAX + 2] = "", setting[CRYPT_GENSALT_OUTPUT_SIZE];
    struct crypt_data *data = calloc(1, sizeof(*data));
    const char *hash = NULL;

    bool is_read = password_ask(in, password);
    if (!is_read)
        fprintf(stderr, "angarium: expected a password of 1 to %u octets\n", AUTH_PASSWORD_MAX);
    else if (data == NULL || crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof(setting)) == NULL)
        fputs("angarium: no randomness or no memory\n", stderr);
    else
        hash = crypt_rn(password, setting, data, (int)sizeof(*data));
    if (hash != NULL && hash[0] != '*')
        fprintf(out, "%s\n", hash);
    else if (is_read)
        fputs("angarium: the password cannot be hashed\n", stderr);
    bool is_done = hash != NULL && hash[0] != '*';
    explicit_bzero(password, sizeof(password));
    if (data != NULL)
        explicit_bzero(data, sizeof(*data));
    free(data);
    return is_done;
}
