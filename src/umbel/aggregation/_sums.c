/* Weighted sums of large arrays in one pass over memory, and what becomes of the sums at the end.
 *
 *     total[i] = (((total[i] + x[0][i] * w[0]) + x[1][i] * w[1]) + ...) / divisor
 *
 * Each operation rounds by itself and in this order, as NumPy's do, so the bits are NumPy's. What is saved is the way of
 * products and sums through the cache, once for each update. No more updates are read at a time than a processor reads
 * ahead of.
 */

#include <float.h>
#include <stddef.h>
#include <stdint.h>

#if FLT_EVAL_METHOD != 0
#error "products would not round by themselves here"
#endif

#define TOGETHER 5
/* Elements whose sums stay in the cache until all updates are in them. */
#define PART 16384

/* One loop for processors with AVX2 and one for all, where compiler and C library can choose between them. */
#ifdef CLONES
#define FOR_EACH_MACHINE __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_MACHINE
#endif
#define INLINE static inline __attribute__((always_inline))

/* INT is as wide as T, so that counting fits the lanes; of a part, it cannot overflow.
 *
 * Adds `count` updates, from element `at` on, to n sums. If they are `fresh` nothing is in the sums yet; if it is the
 * `last` time, the sums are divided. Returns how many elements are not finite then, though they were before, or at all
 * if they have to be: a difference from itself is not 0 for what is not finite. */
#define SOME(T, INT)                                                                                                 \
    INLINE size_t some_##T(T *restrict total, size_t n, const T *const *x, const T *w, size_t at, int count, int fresh,  \
                           int last, T divisor, int finite)                                                          \
    {                                                                                                                \
        const T *y[TOGETHER];                                                                                        \
        T v[TOGETHER];                                                                                               \
        INT lost = 0;                                                                                                \
        for (int j = 0; j < count; j++) {                                                                            \
            y[j] = x[j] + at;                                                                                        \
            v[j] = w[j];                                                                                             \
        }                                                                                                            \
        for (size_t i = 0; i < n; i++) {                                                                             \
            T sum = fresh ? (T)-0.0 : total[i]; /* -0 and x are x, whatever x is */                                  \
            for (int j = 0; j < count; j++)                                                                          \
                sum += y[j][i] * v[j];                                                                               \
            if (last) {                                                                                              \
                T mean = sum / divisor;                                                                              \
                lost += (INT)(mean - mean != 0) & (INT)(finite | (sum - sum == 0));                                  \
                sum = mean;                                                                                          \
            }                                                                                                        \
            total[i] = sum;                                                                                          \
        }                                                                                                            \
        return lost;                                                                                                 \
    }

/* Of the locals of the function below. */
#define COUNT(T, k)                                                                                                  \
    (last ? some_##T(sums, size, x + start, w + start, from, k, begins, 1, divisor, finite)                            \
          : some_##T(sums, size, x + start, w + start, from, k, begins, 0, divisor, finite))

/* Adds all updates, a part of the sums after the other. Without a divisor, which is 0 then, the sums stay sums. */
#define ADD(T)                                                                                                       \
    FOR_EACH_MACHINE size_t umbel_add_1_##T(T *total, size_t n, const T *const *x, const T *w, size_t updates, size_t at,  \
                                          int fresh, T divisor, int finite)                                          \
    {                                                                                                                \
        size_t lost = 0;                                                                                             \
        for (size_t done = 0; done < n; done += PART) {                                                              \
            size_t size = n - done < PART ? n - done : PART, from = at + done;                                       \
            T *sums = total + done;                                                                                  \
            for (size_t start = 0; start < updates; start += TOGETHER) {                                             \
                int begins = fresh && start == 0, last = divisor != 0 && updates - start <= TOGETHER;                \
                switch (updates - start) {                                                                           \
                case 1: lost += COUNT(T, 1); break;                                                                  \
                case 2: lost += COUNT(T, 2); break;                                                                  \
                case 3: lost += COUNT(T, 3); break;                                                                  \
                case 4: lost += COUNT(T, 4); break;                                                                  \
                default: lost += COUNT(T, TOGETHER);                                                                 \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
        return lost;                                                                                                 \
    }

SOME(float, uint32_t)
SOME(double, uint64_t)
ADD(float)
ADD(double)
