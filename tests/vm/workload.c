/* The program in the tests' containers. Linked statically, because its image contains nothing else.
 *
 * `workload 0` sleeps forever. `workload THREADS` computes forever in that many threads. Each thread
 * prints "THREAD CPU" when it starts and whenever it runs on another CPU: only the thread itself
 * can notice every move.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *compute(void *thread)
{
    int last = -1;

    for (;;) {
        int cpu = sched_getcpu();

        if (cpu != last)
            printf("%d %d\n", (int)(intptr_t)thread, cpu);
        last = cpu;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    pthread_t ignored;

    if (!threads)
        for (;;)
            pause();
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (intptr_t thread = 1; thread < threads; thread++)
        if (pthread_create(&ignored, NULL, compute, (void *)thread))
            return EXIT_FAILURE;
    compute(0);
}
