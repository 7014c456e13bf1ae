/* Three loops over large arrays, with the bits of what NumPy does: weighted sums, distances between updates, and the
 * distance of one record from another.
 *
 * Each operation rounds by itself and in its order, or is exact, and then its order does not matter.
 */

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "operations would not round by themselves here"
#endif

/* One loop for processors with AVX2 and one for all, where compiler and C library can choose between them. */
#ifdef CLONES
#define FOR_EACH_MACHINE __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_MACHINE
#endif
#define INLINE static inline __attribute__((always_inline))

/* Weighted sums in one pass over memory, and what becomes of the sums at the end.
 *
 *     total[i] = (((total[i] + x[0][i] * w[0]) + x[1][i] * w[1]) + ...) / divisor
 *
 * Each product and each sum rounds, as NumPy's do. What is saved is the way of products and sums through the cache,
 * once for each update. No more updates are read at a time than a processor reads ahead of.
 */

#define TOGETHER 5
/* Elements whose sums stay in the cache until all updates are in them. */
#define PART 16384

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

/* Squared distances of updates from the model, and half of those from each other, run by run.
 *
 * Differences from the model are taken to 21 binary digits of the largest in their run, in float64: a number that is
 * added and subtracted rounds to its own last digit, so float32 would give the same, where it holds that number. Then
 * products have 42 digits and their sums in a run at most 53, and are exact in any order. The rest is done in NumPy's:
 * half(i) + half(j) - product(i, j), where a half is that of an update's product with itself, one run after the other.
 */

#define RUN 2048
/* Elements of all updates that are multiplied while they are in the inner caches: a strip of each, side by side. */
#define STRIP 256
#define DIGITS 21
/* So many updates by so many have their sums of products in registers. */
#define SIDE 3
/* Products of numbers between these neither overflow nor lose digits at the small end. */
#define LEAST 0x1p-480
#define MOST 0x1p480

/* What a register holds of float64, or two of them where there is no AVX2. */
#ifdef CLONES
#define LANES 4
#else
#define LANES 2
#endif
typedef double Lanes __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

/* Takes the model from an update, with zeros behind. Returns the largest magnitude, or NaN if there is one: without
 * their signs the bits of numbers are integers in the same order, and those of NaN are beyond infinity. */
#define MOVED(T, INT, UNSIGNED)                                                                                      \
    INLINE double moved_##T(T *restrict moved, const T *restrict x, const T *restrict model, size_t n)               \
    {                                                                                                                \
        INT most = 0;                                                                                                \
        T largest;                                                                                                   \
        for (size_t i = 0; i < n; i++) {                                                                             \
            T apart = x[i] - model[i];                                                                               \
            INT bits;                                                                                                \
            memcpy(&bits, &apart, sizeof bits);                                                                      \
            bits &= (INT)((UNSIGNED)-1 >> 1);                                                                        \
            most = bits > most ? bits : most;                                                                        \
            moved[i] = apart;                                                                                        \
        }                                                                                                            \
        memset(moved + n, 0, (RUN - n) * sizeof(T));                                                                 \
        memcpy(&largest, &most, sizeof largest);                                                                     \
        return (double)largest;                                                                                      \
    }

/* Writes the strips of an update, which are `stride` apart. */
#define ROUNDED(T)                                                                                                   \
    INLINE void rounded_##T(double *restrict strips, size_t stride, const T *restrict moved, double coarse)          \
    {                                                                                                                \
        for (size_t start = 0; start < RUN; start += STRIP, strips += stride)                                        \
            for (size_t i = 0; i < STRIP; i++)                                                                       \
                strips[i] = ((double)moved[start + i] + coarse) - coarse;                                            \
    }

/* The number that rounds what is added to it to so many digits of `largest`: 1.5 * 2**(its exponent + 52 - DIGITS). */
INLINE double coarse_for(double largest)
{
    uint64_t bits;
    memcpy(&bits, &largest, sizeof bits);
    bits = (((bits >> 52) + 1 + 52 - DIGITS) << 52) | (uint64_t)1 << 51;
    memcpy(&largest, &bits, sizeof bits);
    return largest;
}

/* Adds the products of a strip of some updates with those of others. */
INLINE void multiplied(double *products, size_t count, const double *x, const double *y, int rows, int columns)
{
    Lanes sums[SIDE][SIDE] = {{{0}}};
    for (size_t at = 0; at < STRIP; at += LANES)
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++)
                sums[i][j] += *(const Lanes *)(x + i * STRIP + at) * *(const Lanes *)(y + j * STRIP + at);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            for (int lane = 0; lane < LANES; lane++)
                products[i * count + j] += sums[i][j][lane];
}

/* Adds the products of a strip of all updates, on the diagonal and below. */
INLINE void all_multiplied(double *products, size_t count, const double *strip)
{
    for (size_t i = 0; i < count; i += SIDE) {
        const double *x = strip + i * STRIP;
        double *row = products + i * count;
        for (size_t j = 0; j < i; j += SIDE)
            switch (count - i) {
            case 1: multiplied(row + j, count, x, strip + j * STRIP, 1, SIDE); break;
            case 2: multiplied(row + j, count, x, strip + j * STRIP, 2, SIDE); break;
            default: multiplied(row + j, count, x, strip + j * STRIP, SIDE, SIDE);
            }
        switch (count - i) {
        case 1: multiplied(row + i, count, x, x, 1, 1); break;
        case 2: multiplied(row + i, count, x, x, 2, 2); break;
        default: multiplied(row + i, count, x, x, SIDE, SIDE);
        }
    }
}

/* Adds what a run contributes: squares of lengths, and below the diagonal half of those of distances. */
INLINE void measured(double *model, double *others, size_t count, const double *products)
{
    for (size_t i = 0; i < count; i++) {
        double half = products[i * count + i] / 2;
        for (size_t j = 0; j < i; j++)
            others[i * count + j] += (half + products[j * count + j] / 2) - products[i * count + j];
        model[i] += 2 * half;
    }
}

/* Adds n elements of `count` updates, which follow their model in x. There has to be room for a run of all of them and
 * for their products. An update is `lost` if an element is not finite or too large; its distances are of no use then. */
#define APART(T)                                                                                                     \
    FOR_EACH_MACHINE void umbel_apart_1_##T(double *model, double *others, uint8_t *lost, double *room,                \
                                          const T *const *x, size_t count, size_t n)                                 \
    {                                                                                                                \
        double *products = room + count * RUN;                                                                       \
        T moved[RUN];                                                                                                \
        for (size_t at = 0; at < n; at += RUN) {                                                                     \
            size_t size = n - at < RUN ? n - at : RUN;                                                               \
            for (size_t i = 0; i < count; i++) {                                                                     \
                double largest = moved_##T(moved, x[i + 1] + at, x[0] + at, size), coarse = 0;                       \
                int fits = largest < MOST;                                                                           \
                lost[i] |= !fits;                                                                                    \
                if (fits && largest > LEAST)                                                                         \
                    coarse = coarse_for(largest);                                                                    \
                else                                                                                                 \
                    memset(moved, 0, sizeof moved);                                                                  \
                rounded_##T(room + i * STRIP, count * STRIP, moved, coarse);                                         \
            }                                                                                                        \
            memset(products, 0, count * count * sizeof *products);                                                   \
            for (size_t start = 0; start < size; start += STRIP)                                                     \
                all_multiplied(products, count, room + start * count);                                               \
            measured(model, others, count, products);                                                                \
        }                                                                                                            \
    }

MOVED(float, int32_t, uint32_t)
MOVED(double, int64_t, uint64_t)
ROUNDED(float)
ROUNDED(double)
APART(float)
APART(double)

/* Squares of differences between two arrays, added into lanes in one pass over memory.
 *
 * A block is rows of as many elements as there are lanes. Each square and each sum rounds to T, row after row, as
 * NumPy's do; the sums of a block, and the squares behind its last whole row, are added to the lanes in float64.
 */

#define ROW 4096
/* Elements whose squares are added in T. */
#define BLOCK (64 * ROW)

#define SQUARES(T)                                                                                                   \
    FOR_EACH_MACHINE void umbel_squares_1_##T(double *restrict lanes, const T *x, const T *y, size_t n)                \
    {                                                                                                                \
        T sums[ROW];                                                                                                 \
        for (size_t size; n > 0; n -= size, x += size, y += size) {                                                  \
            size_t row = 0;                                                                                          \
            size = n < BLOCK ? n : BLOCK;                                                                            \
            memset(sums, 0, sizeof sums); /* 0 and a square are that square */                                       \
            for (; row + ROW <= size; row += ROW)                                                                    \
                for (size_t i = 0; i < ROW; i++) {                                                                   \
                    T apart = x[row + i] - y[row + i];                                                               \
                    sums[i] += apart * apart;                                                                        \
                }                                                                                                    \
            for (size_t i = 0; row > 0 && i < ROW; i++)                                                              \
                lanes[i] += (double)sums[i];                                                                         \
            for (size_t i = 0; i < size - row; i++) {                                                                \
                T apart = x[row + i] - y[row + i], square = apart * apart;                                           \
                lanes[i] += (double)square;                                                                          \
            }                                                                                                        \
        }                                                                                                            \
    }

SQUARES(float)
SQUARES(double)
