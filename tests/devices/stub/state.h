/* The state of the fake machine: a text file, "key value" a line, read again at every question.
 *
 * HELEXA_STUB names the file, so a test changes what the fake cards say while the process runs.
 * Calls that a test wants to count are appended to the file "<HELEXA_STUB>.calls".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MB (1024ULL * 1024ULL)

static void text(int card, const char *name, const char *otherwise, char *out, size_t size) {
    char key[64], line[256];
    const char *path = getenv("HELEXA_STUB");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (card < 0) snprintf(key, sizeof key, "%s ", name);
    else snprintf(key, sizeof key, "%d.%s ", card, name);
    snprintf(out, size, "%s", otherwise);
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(out, size, "%s", line + strlen(key));
        break;
    }
    if (file) fclose(file);
}

static long long number(int card, const char *name, long long otherwise) {
    char value[128];
    text(card, name, "", value, sizeof value);
    return *value ? atoll(value) : otherwise;
}

static inline void count_call(const char *name) {
    char path[4096];
    const char *state = getenv("HELEXA_STUB");
    FILE *file;
    if (!state) return;
    snprintf(path, sizeof path, "%s.calls", state);
    if ((file = fopen(path, "a"))) {
        fprintf(file, "%s\n", name);
        fclose(file);
    }
}
