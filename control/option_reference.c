/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference page of the configuration, written from the rows of option.def as Markdown: one
 * section per group, one table row per option. docs/configuration.md is this text; a test compares.
 */
#include <string.h>

#include "control/option.h"

static const char introduction[] =
    "# Configuration\n"
    "\n"
    "<!-- Written by `angarium check --reference` from control/option.def: change it there. -->\n"
    "\n"
    "One YAML file, `/etc/angarium/angarium.yaml` unless `angariumd -c FILE` names another. Every\n"
    "option has a default; an empty file is a configuration that relays for programs on the same\n"
    "machine. Unknown keys, wrong types and impossible values are refused with file, line and "
    "what\n"
    "was expected, before anything runs: `angarium check FILE`.\n"
    "\n"
    "```yaml\n"
    "hostname: mail.example.org\n"
    "listen:\n"
    "  - address: 0.0.0.0:25\n"
    "    tls: {certificate: /etc/angarium/mail.pem, key: /etc/angarium/mail.key}\n"
    "  - address: \"[::]:25\"\n"
    "    limits: {recipients: 500, message_size: 30MB}\n"
    "relay_from: [127.0.0.0/8, \"::1\", 192.0.2.0/24]\n"
    "routes:\n"
    "  - {match: example.org, served: true, hosts: [{host: mx.example.org, port: 25}]}\n"
    "  - match: \"*\"\n"
    "    hosts: [{host: smarthost.example.net, port: 587}]\n"
    "    tls: {level: verify}\n"
    "    auth: {user: relay, password_file: /etc/angarium/smarthost.password}\n"
    "spool: {directory: /var/spool/angarium, size: 20GB}\n"
    "records: {file: /var/log/angarium/records.json}\n"
    "```\n"
    "\n"
    "Durations are written `500ms`, `90s`, `5m`, `1h30m`, `20 minutes`, `4d`; sizes `64MB`\n"
    "(1,000 x 1,000), `1GiB` (1,024 x 1,024 x 1,024), or plain octets. IPv6 addresses need "
    "quotes,\n"
    "since YAML reads colons and brackets for itself.\n"
    "\n"
    "## More files than one\n"
    "\n"
    "`include: [conf.d/*.yaml, /etc/angarium/keys.yaml]` reads other files as if they stood here. "
    "A\n"
    "relative path begins beside the file that has it; `*`, `?` and `[a-z]` match names, in the "
    "order\n"
    "of their octets; a pattern that matches nothing is no mistake, a name that is not there is "
    "one.\n"
    "Lists of mappings (`listen`, `routes`, `sites`, `sources`, `patterns` ...) add up: first "
    "those of a\n"
    "file, then those of the files that it includes, in their order. Sections may be spread over "
    "files.\n"
    "A value, and a list of values, is given once: a second one is refused, and both places are "
    "named.\n"
    "No file is read twice; included files may include others, 8 below each other and 128 in all.\n"
    "`angarium config show` says for each value which file and line it comes from, and every "
    "complaint\n"
    "of `angarium check` has them.\n"
    "\n"
    "## Secrets\n"
    "\n"
    "Passwords, keys and tokens are in files of their own (`password_file`, `key`, `secret_file`,\n"
    "`viewer_token_file`, `admin_token_file`, `auth.users_file`), never in the configuration "
    "itself.\n"
    "\n"
    "## Reload\n"
    "\n"
    "`angarium reload` (or SIGHUP) reads the files again, says which options and lists have "
    "changed,\n"
    "and gives all cores the new configuration, or none: a file with a mistake changes nothing.\n"
    "It answers, and the service manager hears that the reload is over, when every core has it.\n"
    "Options marked *restart* keep their old value until the relay is started again; the log says\n"
    "which those are.\n";

static void default_write(const struct option *option, FILE *out)
{
    if (option->default_text == NULL)
        fprintf(out, "required");
    else if (*option->default_text != '\0')
        fprintf(out, "`%s`", option->default_text);
}

static void row_write(const struct option *option, FILE *out)
{
    char expectation[OPTION_WHY_SIZE];

    fprintf(out, "| `%s` | %s%s | ", option_key(option),
            option_is_list(option) && option->kind != OPTION_SEQUENCE ? "list: each " : "",
            option_expectation(option, expectation));
    default_write(option, out);
    fprintf(out, " | %s | %s |\n", option->is_reloadable ? "reload" : "*restart*", option->help);
}

static void section_write(const char *section, FILE *out)
{
    fprintf(out, "\n| option | expects | default | takes effect | meaning |\n"
                 "|---|---|---|---|---|\n");
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        if (option->kind != OPTION_MAPPING && option->kind != OPTION_SEQUENCE &&
            option_is_in(option, section))
            row_write(option, out);
    }
}

void option_write_reference(FILE *out)
{
    fputs(introduction, out);
    fputs("\n## At the top\n", out);
    section_write("", out);
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        char section[OPTION_PATH_SIZE];
        if (option->kind != OPTION_MAPPING && option->kind != OPTION_SEQUENCE)
            continue;
        snprintf(section, sizeof(section), "%s%s", option->path,
                 option->kind == OPTION_SEQUENCE ? "[]" : "");
        fprintf(out, "\n## %s\n\n%s\n", section, option->help);
        section_write(section, out);
    }
}
