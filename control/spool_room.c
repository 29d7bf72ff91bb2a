/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that is smaller than the spool may become is no error: the spool then ends where the disk
 * does, and mail is answered 452. Whoever configured more should know of it before that.
 *
 * Not here: a disk that is full (queue/spool_supply.c).
 */
#include "control/spool_room.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define MEBIBYTE    ((uint64_t)1 << 20)
#define ENTRIES_MAX 1000000u

static bool is_segment(const char *name)
{
    static const char suffix[] = ".spool";
    size_t size = strlen(name);

    return size >= sizeof(suffix) && strcmp(name + size - (sizeof(suffix) - 1), suffix) == 0;
}

/* On the disk, by the segments that are there. */
static uint64_t octets_used(DIR *directory)
{
    const struct dirent *entry;
    uint64_t octets = 0;

    for (uint32_t i = 0; i < ENTRIES_MAX && (entry = readdir(directory)) != NULL; i++) {
        struct stat status;
        if (is_segment(entry->d_name) &&
            fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            octets += (uint64_t)status.st_blocks * 512;
    }
    return octets;
}

bool spool_room_suffices(const struct config_spool *spool, char ret_why[SPOOL_ROOM_WHY_SIZE])
{
    DIR *directory = opendir(spool->directory);
    struct statvfs status;

    if (directory == NULL)
        return true;
    bool is_known = fstatvfs(dirfd(directory), &status) == 0;
    uint64_t used = octets_used(directory);
    closedir(directory);
    uint64_t room = is_known ? used + (uint64_t)status.f_bavail * status.f_frsize : UINT64_MAX;
    if (room >= spool->size)
        return true;
    (void)snprintf(ret_why, SPOOL_ROOM_WHY_SIZE,
                   "spool.size is %" PRIu64 " MiB, and the disk of %.300s has room for %" PRIu64
                   " MiB of it: when that is full, mail is answered 452",
                   spool->size / MEBIBYTE, spool->directory, room / MEBIBYTE);
    return false;
}
