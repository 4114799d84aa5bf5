// sallyport run: the supervisor; sallyport worker: what it starts.
#include "base/log.h"
#include "cli/cli.h"
#include "cli/process.h"
#include "cli/supervisor.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char usage[] = "usage: sallyport run -c FILE [--log-level debug|info|warn|error]\n";

static int level_of(const char *name)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; i < countof(names); i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -1;
}

// A descriptor 0, 1 or 2 that is closed would be given to a socket, and then be written to as a log.
static void fill_standard_descriptors(void)
{
    for (int fd; (fd = open("/dev/null", O_RDWR)) >= 0;)
        if (fd > STDERR_FILENO) {
            close(fd);
            break;
        }
}

int cli_run(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"log-level", required_argument, NULL, 'l'},
                                            {NULL, 0, NULL, 0}};
    const char *file = NULL;
    int level = LOG_INFO, option;
    while ((option = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
        if (option == 'c')
            file = optarg;
        else if (option == 'l')
            level = level_of(optarg);
        if (option == '?' || level < 0) {
            fputs(usage, stderr);
            return CLI_USAGE;
        }
    }
    if (!file || optind != argc) {
        fputs(usage, stderr);
        return CLI_USAGE;
    }
    log_set_level((enum log_level)level);
    fill_standard_descriptors();
    return supervisor_run(file, level, argv - 1); // main's: the program's name stands before ours
}

int cli_worker(int argc, char **argv)
{
    uint64_t fd;
    if (argc != 3 || !str_to_u64(str_of(argv[1]), INT32_MAX, &fd) ||
        fcntl((int)fd, F_SETFD, FD_CLOEXEC) != 0) {
        fputs("sallyport worker is started by sallyport run\n", stderr);
        return CLI_USAGE;
    }
    return process_main((int)fd, argv[2]);
}
