// The sub-commands of `sallyport`. Each takes its own arguments (argv[0] is its name) and returns the exit
// status: 0 done, 1 failed or invalid, 2 used wrongly.
#pragma once

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

int cli_run(int argc, char **argv);
// The worker process that `run` starts; not for people.
int cli_worker(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_dump(int argc, char **argv);
int cli_schema(int argc, char **argv);
int cli_routes(int argc, char **argv);
int cli_explain(int argc, char **argv);
int cli_health(int argc, char **argv);
int cli_hash_key(int argc, char **argv);
int cli_verify(int argc, char **argv);
int cli_version(int argc, char **argv);
