/* A library for LD_PRELOAD: a thread that maps and unmaps memory, on the CPUs in UNMAP_ON.
 *
 * The kernel then interrupts all other CPUs on which a thread of the same process runs, so that
 * they forget the addresses.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t SIZE = 4096;

static void *unmap(void *cpu)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET((long)cpu, &cpus);
    if (sched_setaffinity(0, sizeof(cpus), &cpus))
        abort();
    for (;;) {
        char *page = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (page == MAP_FAILED)
            abort();
        *page = 1; /* an untouched page is in no address cache */
        munmap(page, SIZE);
        usleep(10);
    }
    return NULL;
}

__attribute__((constructor)) static void start(void)
{
    const char *cpu = getenv("UNMAP_ON");
    pthread_t thread;

    if (cpu && pthread_create(&thread, NULL, unmap, (void *)atol(cpu)))
        abort();
}
