/* Preloaded into a process, this hides instruction sets from the libraries in it, which then choose older kernels.

   MASK_CPUID=avx2 hides AVX-512, VNNI and AMX; MASK_CPUID=avx512 hides VNNI, AMX and the 16-bit floats of AVX-512, which
   no processor has without VNNI. Linux on x86-64 can make the CPUID instruction fault (arch_prctl(2), ARCH_SET_CPUID);
   the handler runs it and clears the bits. Where the processor cannot (AMD before Zen 5, many virtual machines),
   MASK_CPUID_PATCHED=1 instead answers an undefined instruction, 0F 0A, with which masking.py replaces CPUID in a copy of
   a library. The kernels run at their own speed, so unlike an emulator this also shows what they cost. A program that
   blocks the signal and then runs the instruction dies of it. Exit code 70: not supported here, or an unknown value. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))
/* CPUID leaf 7, by sub-leaf and register; names as in Intel's manual. */
#define AVX512_EBX (BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31))
#define AVX512_ECX (BIT(1) | BIT(6) | BIT(12) | BIT(14)) /* VBMI, VBMI2, BITALG, VPOPCNTDQ */
#define AVX512_EDX (BIT(2) | BIT(3) | BIT(8))            /* 4VNNIW, 4FMAPS, VP2INTERSECT */
#define VNNI_ECX BIT(11)
#define AMX_EDX (BIT(22) | BIT(23) | BIT(24) | BIT(25))  /* AMX_BF16, AVX512_FP16, AMX_TILE, AMX_INT8 */
#define VNNI_1_EAX (BIT(4) | BIT(5))                     /* AVX_VNNI, AVX512_BF16 */
#define VNNI_1_EDX (BIT(4) | BIT(5) | BIT(10) | BIT(19)) /* AVX_VNNI_INT8, NE_CONVERT, VNNI_INT16, AVX10 */

static int hide_avx512, active, patched;

static long set_cpuid(unsigned long enabled) { return patched ? 0 : syscall(SYS_arch_prctl, ARCH_SET_CPUID, enabled); }

static int answered(int number) { return number == (patched ? SIGILL : SIGSEGV); }

static void answer_cpuid(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *instruction = (const uint8_t *)registers[REG_RIP];
    uint32_t a, b, c, d, leaf = (uint32_t)registers[REG_RAX], sub_leaf = (uint32_t)registers[REG_RCX];
    (void)info;
    if (instruction[0] != 0x0f || instruction[1] != (patched ? 0x0a : 0xa2)) { /* a real fault: let it happen again */
        active = 0;
        signal(number, SIG_DFL);
        return;
    }
    set_cpuid(1);
    __cpuid_count(leaf, sub_leaf, a, b, c, d);
    set_cpuid(0);
    if (leaf == 7 && sub_leaf == 0) {
        c &= ~VNNI_ECX;
        d &= ~AMX_EDX;
        if (hide_avx512) {
            b &= ~AVX512_EBX;
            c &= ~AVX512_ECX;
            d &= ~AVX512_EDX;
        }
    }
    if (leaf == 7 && sub_leaf == 1) {
        a &= ~VNNI_1_EAX;
        d &= ~VNNI_1_EDX;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

/* Python's faulthandler would take the signal away; others use the older signal(). */
__sighandler_t signal(int number, __sighandler_t wanted) {
    __sighandler_t (*next)(int, __sighandler_t) = dlsym(RTLD_NEXT, "signal");
    return active && answered(number) ? SIG_DFL : next(number, wanted);
}

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
    int (*next)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    if (active && answered(number) && wanted) {
        if (before) memset(before, 0, sizeof *before);
        return 0;
    }
    return next(number, wanted, before);
}

__attribute__((constructor)) static void begin(void) {
    const char *wanted = getenv("MASK_CPUID");
    struct sigaction action;
    if (!wanted) return;
    hide_avx512 = !strcmp(wanted, "avx2");
    if (!hide_avx512 && strcmp(wanted, "avx512")) _exit(70);
    patched = getenv("MASK_CPUID_PATCHED") != NULL;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer_cpuid;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    if (sigaction(patched ? SIGILL : SIGSEGV, &action, NULL) || set_cpuid(0)) _exit(70);
    active = 1;
}
