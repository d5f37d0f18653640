/*
 * Slurm's door to Mayfly: options of srun, sbatch and salloc, and the starter in the job's place.
 *
 * Nothing is decided here. Root's program "register" says whether a task gets a machine and gives
 * the ticket; the starter, which replaces the task's program, does the rest as the job's user.
 *
 * plugstack.conf:  required /DIR/mayfly_spank.so programs=/DIR policy=/FILE [epilog=yes]
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <slurm/slurm.h>
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

SPANK_PLUGIN(mayfly, 1)

#define TICKET_MOST (64 << 10)
#define WORDS_MOST 32
enum { IMAGE, NETWORK, ALLOW, ROOT, SHARE, KEEP, OPTIONS };

static const char *names[OPTIONS] = {"image", "network", "allow", "root", "share", "keep"};
static char *given[OPTIONS];
static char programs[512] = "/usr/libexec/mayfly/slurm";
static char policy[512] = "/etc/mayfly/policy.toml";
static int has_epilog;
static char *ticket;

static int keep_option(int val, const char *text, int remote);

static struct spank_option options[] = {
    {"vm-image", "NAME|none|list", "run in a machine of this image (none: in no machine; "
     "list: show the images)", 1, IMAGE, keep_option},
    {"vm-network", "none|restricted|open", "what the machine can reach", 1, NETWORK, keep_option},
    {"vm-allow", "HOST:PORT,...", "for --vm-network=restricted: what it can reach", 1, ALLOW,
     keep_option},
    {"vm-root", NULL, "be root in the machine", 0, ROOT, keep_option},
    {"vm-share", "DIR[:ro],...", "directories that are live in the machine", 1, SHARE,
     keep_option},
    {"vm-keep", NULL, "keep the machine for a look when the job fails", 0, KEEP, keep_option},
    SPANK_OPTIONS_TABLE_END};

static void read_arguments(int ac, char **av)
{
    for (int i = 0; i < ac; i++) {
        if (!strncmp(av[i], "programs=", 9))
            snprintf(programs, sizeof programs, "%s", av[i] + 9);
        else if (!strncmp(av[i], "policy=", 7))
            snprintf(policy, sizeof policy, "%s", av[i] + 7);
        else if (!strcmp(av[i], "epilog=yes"))
            has_epilog = 1;
    }
}

/* A site without default images asks nothing of jobs that say nothing. */
static int has_defaults(void)
{
    char line[4096];
    int found = 0;
    FILE *file = fopen(policy, "re");
    if (!file)
        return 0;
    while (!found && fgets(line, sizeof line, file))
        found = strstr(line, "default") != NULL;
    fclose(file);
    return found;
}

static int wishes(void)
{
    for (int i = 0; i < OPTIONS; i++)
        if (given[i])
            return 1;
    return 0;
}

/* Whether root is to be asked: of jobs that say nothing, or want no machine, only where a policy
 * may have something to say of them. */
static int concerns_us(void)
{
    return (given[IMAGE] && strcmp(given[IMAGE], "none")) || has_defaults();
}

static int add(char **words, int count, const char *name, const char *value)
{
    if (count >= WORDS_MOST || asprintf(&words[count], "%s=%s", name, value) < 0)
        return count;
    return count + 1;
}

static int add_number(char **words, int count, const char *name, unsigned long value)
{
    char text[32];
    snprintf(text, sizeof text, "%lu", value);
    return add(words, count, name, text);
}

static int add_options(char **words, int count)
{
    char name[32];
    for (int i = 0; i < OPTIONS; i++) {
        if (!given[i])
            continue;
        snprintf(name, sizeof name, "vm-%s", names[i]);
        count = add(words, count, name, given[i]);
    }
    return count;
}

static void forget(char **words, int count)
{
    for (int i = 1; i < count; i++)
        free(words[i]);
}

/* In a child: become one of our programs, with nothing of the job's in its environment. */
static void become(const char *name, char **words, int out)
{
    char path[600], conf[4096];
    char *env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", NULL, NULL};
    const char *own = getenv("SLURM_CONF");
    sigset_t none;
    int null = open("/dev/null", O_RDWR);
    if (null >= 0)
        dup2(null, 0);
    if (out >= 0)
        dup2(out, 1);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGCHLD, SIG_DFL);
    if (own) {
        snprintf(conf, sizeof conf, "SLURM_CONF=%s", own);
        env[2] = conf;
    }
    snprintf(path, sizeof path, "%s/%s", programs, name);
    words[0] = path;
    execve(path, words, env);
    _exit(127);
}

/* Run a program and give what it wrote, NULL when it failed. */
static char *ask(const char *name, char **words)
{
    int ends[2], status;
    size_t length = 0;
    ssize_t got;
    char *text = malloc(TICKET_MOST + 1);
    if (!text || pipe2(ends, O_CLOEXEC))
        return free(text), NULL;
    pid_t pid = fork();
    if (pid == 0)
        become(name, words, ends[1]);
    close(ends[1]);
    while (pid > 0 && length < TICKET_MOST) {
        got = read(ends[0], text + length, TICKET_MOST - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    close(ends[0]);
    text[length] = 0;
    if (pid < 0)
        return free(text), NULL;
    while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        ;
    if (got < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
        return free(text), NULL;
    return text;
}

/* Run a program whose words are for the user, and give its exit status. */
static int tell(const char *name)
{
    char *words[WORDS_MOST + 1] = {0};
    int status = -1, count;
    count = add(words, 1, "program", program_invocation_short_name);
    count = add_options(words, count);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(name, words, -1);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    forget(words, count);
    return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int keep_option(int val, const char *text, int remote)
{
    int status;
    free(given[val]);
    given[val] = strdup(text ? text : "yes");
    if (!given[val])
        return -1;
    if (remote || val != IMAGE || strcmp(given[val], "list"))
        return 0;
    /* The images are shown, and nothing is submitted. */
    status = tell("submit");
    exit(status < 0 ? 1 : status);
}

/* slurmd has told its stepds; where it has not, the host is the node. */
static const char *node_name(void)
{
    static char name[128];
    const char *told = getenv("SLURMD_NODENAME");
    if (told)
        return told;
    if (gethostname(name, sizeof name - 1))
        return "";
    name[strcspn(name, ".")] = 0;
    return name;
}

static int task_words(spank_t sp, char **words)
{
    uint32_t job = 0, step = 0, local = 0, array = 0, element = 0, restart = 0;
    uint16_t cpus = 0;
    uint64_t memory = 0;
    char *cores = NULL, *step_cores = NULL;
    uid_t uid = (uid_t)-1;
    int task = 0, count = 1;
    spank_get_item(sp, S_JOB_ID, &job);
    spank_get_item(sp, S_JOB_STEPID, &step);
    spank_get_item(sp, S_JOB_UID, &uid);
    spank_get_item(sp, S_JOB_LOCAL_TASK_COUNT, &local);
    spank_get_item(sp, S_JOB_NCPUS, &cpus);
    spank_get_item(sp, S_SLURM_RESTART_COUNT, &restart);
    /* All that the job has on this node: its steps share one machine. */
    spank_get_item(sp, S_JOB_ALLOC_MEM, &memory);
    spank_get_item(sp, S_JOB_ALLOC_CORES, &cores);
    spank_get_item(sp, S_STEP_ALLOC_CORES, &step_cores);
    if (spank_get_item(sp, S_JOB_ARRAY_ID, &array) || spank_get_item(sp, S_JOB_ARRAY_TASK_ID,
                                                                     &element))
        array = 0;
    spank_get_item(sp, S_TASK_ID, &task);
    count = add_number(words, count, "job", job);
    count = add_number(words, count, "step", step);
    count = add_number(words, count, "task", (unsigned long)task);
    count = add_number(words, count, "uid", uid);
    count = add_number(words, count, "tasks", local);
    count = add_number(words, count, "cpus", cpus);
    count = add(words, count, "cores", cores ? cores : "");
    count = add(words, count, "step_cores", step_cores ? step_cores : "");
    count = add(words, count, "node", node_name());
    count = add_number(words, count, "memory_mib", memory);
    count = add_number(words, count, "restart", restart);
    count = add_number(words, count, "array", array);
    return add_number(words, count, "element", element);
}

int slurm_spank_init(spank_t sp, int ac, char **av)
{
    read_arguments(ac, av);
    for (int i = 0; options[i].name; i++)
        if (spank_option_register(sp, &options[i]) != ESPANK_SUCCESS)
            return -1;
    return 0;
}

/* At submission: what cannot be had is refused in the user's terminal. */
int slurm_spank_init_post_opt(spank_t sp, int ac, char **av)
{
    spank_context_t context = spank_context();
    (void)sp;
    (void)ac;
    (void)av;
    if ((context != S_CTX_LOCAL && context != S_CTX_ALLOCATOR) || !wishes())
        return 0;
    /* A step of a job that is there was looked at when that was submitted. */
    if (context == S_CTX_LOCAL && getenv("SLURM_JOB_ID"))
        return 0;
    return tell("submit") ? -1 : 0;
}

/* As root, in the task's own process. */
int slurm_spank_task_init_privileged(spank_t sp, int ac, char **av)
{
    char *words[WORDS_MOST + 1] = {0};
    int count;
    (void)ac;
    (void)av;
    if (!spank_remote(sp) || !concerns_us())
        return 0;
    count = add_options(words, task_words(sp, words));
    free(ticket);
    ticket = ask("register", words);
    forget(words, count);
    if (!ticket)
        /* No ticket at all: the starter says so, and what becomes of the job. */
        ticket = strdup("machine\n");
    return 0;
}

/* As the user, in the same process, just before the task's program is executed. */
int slurm_spank_task_init(spank_t sp, int ac, char **av)
{
    static char starter[600];
    char **argv = NULL, *text;
    int argc = 0;
    (void)ac;
    (void)av;
    if (!spank_remote(sp) || !ticket || strncmp(ticket, "machine\n", 8))
        return 0;
    text = ticket + 8;
    text[strcspn(text, "\n")] = 0;
    if (spank_get_item(sp, S_JOB_ARGV, &argc, &argv) != ESPANK_SUCCESS || argc < 1)
        return -1;
    if (spank_setenv(sp, "MAYFLY_TICKET", text, 1) != ESPANK_SUCCESS ||
        spank_setenv(sp, "MAYFLY_ARGV0", argv[0], 1) != ESPANK_SUCCESS)
        return -1;
    snprintf(starter, sizeof starter, "%s/starter", programs);
    argv[0] = starter;
    return 0;
}

/* As root, when a task has ended: where no epilog does so at the end of the job, this is counted,
 * and nobody waits for it. */
int slurm_spank_task_exit(spank_t sp, int ac, char **av)
{
    char *words[WORDS_MOST + 1] = {0};
    int count;
    (void)ac;
    (void)av;
    if (!spank_remote(sp) || has_epilog || !concerns_us())
        return 0;
    count = task_words(sp, words);
    pid_t pid = fork();
    if (pid == 0) {
        if (fork() == 0)
            become("release", words, -1);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    forget(words, count);
    return 0;
}
