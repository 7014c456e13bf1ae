/* Loops over large arrays, with the bits of what NumPy does: weighted sums, distances between updates, the distance of one
 * record from another, and updates that are looked at and added, whose sums are divided in the end.
 *
 * Each operation rounds by itself and in its order, or is exact, and then its order does not matter.
 */

#include <float.h>
#include <math.h>
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
 *
 * In the same pass, if there is a model, each update is measured by it: with the squares of the third loop, below.
 */

#define TOGETHER 5
/* Elements whose sums stay in the cache until all updates are in them, and whose squares are one number; and so many
 * squares are added beside one another. _squares.py has the same numbers. */
#define PART 16384
#define LANES 256

/* Returns the sum of the lanes in float64: one half is added to the other until a single number is left. */
#define LENGTH(T)                                                                                                    \
    INLINE double length_##T(const T *lanes)                                                                         \
    {                                                                                                                \
        double sums[LANES / 2];                                                                                      \
        for (size_t i = 0; i < LANES / 2; i++)                                                                       \
            sums[i] = (double)lanes[i] + (double)lanes[i + LANES / 2];                                               \
        for (size_t half = LANES / 4; half > 0; half /= 2)                                                           \
            for (size_t i = 0; i < half; i++)                                                                        \
                sums[i] += sums[i + half];                                                                           \
        return sums[0];                                                                                              \
    }

/* Adds the squares of the differences of a row, or of less of it, to the lanes. */
#define SQUARED(T)                                                                                                   \
    INLINE void squared_##T(T *restrict lanes, const T *x, const T *y, size_t n)                                     \
    {                                                                                                                \
        for (size_t i = 0; i < n; i++) {                                                                             \
            T apart = x[i] - y[i];                                                                                   \
            lanes[i] += apart * apart;                                                                               \
        }                                                                                                            \
    }

/* Adds a row of some updates, or less of it, to the sums, and the squares of what each is from the model to its lanes,
 * while their numbers are in registers. */
#define BOTH(T)                                                                                                      \
    typedef T T##s __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));                                  \
    INLINE void both_##T(T *total, const T *const *x, const T *w, int count, int fresh, const T *model,              \
                         T lanes[][LANES], size_t at, size_t n)                                                      \
    {                                                                                                                \
        size_t width = sizeof(T##s) / sizeof(T), whole = n - n % width;                                              \
        for (size_t i = 0; i < whole; i += width) {                                                                  \
            T##s from = *(const T##s *)(model + i), sum = -(T##s){0};                                                \
            if (!fresh)                                                                                              \
                sum = *(T##s *)(total + i);                                                                          \
            for (int j = 0; j < count; j++) {                                                                        \
                T##s here = *(const T##s *)(x[j] + at + i), apart = here - from;                                     \
                sum += here * w[j];                                                                                  \
                *(T##s *)(lanes[j] + i) += apart * apart;                                                            \
            }                                                                                                        \
            *(T##s *)(total + i) = sum;                                                                              \
        }                                                                                                            \
        for (size_t i = whole; i < n; i++) {                                                                         \
            T sum = fresh ? (T)-0.0 : total[i];                                                                      \
            for (int j = 0; j < count; j++)                                                                          \
                sum += x[j][at + i] * w[j];                                                                          \
            total[i] = sum;                                                                                          \
        }                                                                                                            \
        for (int j = 0; j < count; j++)                                                                              \
            squared_##T(lanes[j] + whole, x[j] + at + whole, model + whole, n - whole);                              \
    }

/* INT is as wide as T, so that counting fits the lanes; of a part, it cannot overflow.
 *
 * Adds `count` updates, from element `at` on, to n sums. If they are `fresh` nothing is in the sums yet; if it is the
 * `last` time, the sums are divided. Returns how many elements are not finite then, though they were before, or at all
 * if they have to be: a difference from itself is not 0 for what is not finite. With a `model`, writes the sum of the
 * squares of what each update is from it, `stride` apart. */
#define SOME(T, INT)                                                                                                 \
    INLINE size_t some_##T(T *restrict total, size_t n, const T *const *x, const T *w, size_t at, int count, int fresh,\
                           int last, T divisor, int finite, const T *model, double *squared, size_t stride)          \
    {                                                                                                                \
        const T *y[TOGETHER];                                                                                        \
        T v[TOGETHER], lanes[TOGETHER][LANES];                                                                       \
        INT lost = 0;                                                                                                \
        for (int j = 0; j < count; j++) {                                                                            \
            y[j] = x[j] + at;                                                                                        \
            v[j] = w[j];                                                                                             \
        }                                                                                                            \
        if (model)                                                                                                   \
            memset(lanes, 0, count * sizeof lanes[0]); /* 0 and a square are that square */                          \
        for (size_t row = 0; row < n; row += LANES) {                                                                \
            size_t end = n - row < LANES ? n : row + LANES;                                                          \
            if (model)                                                                                               \
                both_##T(total + row, y, v, count, fresh, model + row, lanes, row, end - row);                       \
            for (size_t i = row; i < end; i++) {                                                                     \
                T sum = fresh && !model ? (T)-0.0 : total[i]; /* -0 and x are x, whatever x is */                    \
                for (int j = 0; !model && j < count; j++)                                                            \
                    sum += y[j][i] * v[j];                                                                           \
                if (last) {                                                                                          \
                    T mean = sum / divisor;                                                                          \
                    lost += (INT)(mean - mean != 0) & (INT)(finite | (sum - sum == 0));                              \
                    sum = mean;                                                                                      \
                }                                                                                                    \
                total[i] = sum;                                                                                      \
            }                                                                                                        \
        }                                                                                                            \
        for (int j = 0; model && j < count; j++)                                                                     \
            squared[j * stride] = length_##T(lanes[j]);                                                              \
        return lost;                                                                                                 \
    }

/* Of the locals of the function below. The compiler makes a loop of its own for each: with a model or without it, and for
 * the last time or not. */
#define MANY(T, k, last, model)                                                                                      \
    some_##T(sums, size, x + start, w + start, from, k, begins, last, divisor, finite, model, squares, stride)
#define COUNT(T, k)                                                                                                  \
    (there ? last ? MANY(T, k, 1, there) : MANY(T, k, 0, there) : last ? MANY(T, k, 1, NULL) : MANY(T, k, 0, NULL))

/* Adds all updates, a part of the sums after the other. Without a divisor, which is 0 then, the sums stay sums. */
#define ADD(T)                                                                                                       \
    FOR_EACH_MACHINE size_t umbel_add_4_##T(T *total, size_t n, const T *const *x, const T *w, size_t updates,       \
                                            size_t at,                                                               \
                                          int fresh, T divisor, int finite, const T *model, double *squared,         \
                                          size_t stride)                                                             \
    {                                                                                                                \
        size_t lost = 0;                                                                                             \
        for (size_t done = 0; done < n; done += PART) {                                                              \
            size_t size = n - done < PART ? n - done : PART, from = at + done;                                       \
            T *sums = total + done;                                                                                  \
            const T *there = model ? model + from : NULL;                                                            \
            for (size_t start = 0; start < updates; start += TOGETHER) {                                             \
                double *squares = model ? squared + start * stride + done / PART : NULL;                             \
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

LENGTH(float)
LENGTH(double)
SQUARED(float)
SQUARED(double)
BOTH(float)
BOTH(double)
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
#define WIDTH 4
#else
#define WIDTH 2
#endif
typedef double Lanes __attribute__((vector_size(WIDTH * sizeof(double)), aligned(sizeof(double)), may_alias));

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
    for (size_t at = 0; at < STRIP; at += WIDTH)
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++)
                sums[i][j] += *(const Lanes *)(x + i * STRIP + at) * *(const Lanes *)(y + j * STRIP + at);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            for (int lane = 0; lane < WIDTH; lane++)
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
    FOR_EACH_MACHINE void umbel_apart_4_##T(double *model, double *others, uint8_t *lost, double *room,              \
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

/* Squares of differences between two arrays, a part after the other, in one pass over memory.
 *
 * A part is rows of as many elements as there are lanes. Each square and each sum rounds to T, row after row, as
 * NumPy's do; the lanes of a part are added in float64.
 */

#define ONE_PART(T)                                                                                                  \
    INLINE double part_##T(const T *x, const T *y, size_t n)                                                         \
    {                                                                                                                \
        T lanes[LANES] = {0};                                                                                        \
        for (size_t row = 0; row < n; row += LANES)                                                                  \
            squared_##T(lanes, x + row, y + row, n - row < LANES ? n - row : LANES);                                 \
        return length_##T(lanes);                                                                                    \
    }

#define SQUARES(T)                                                                                                   \
    FOR_EACH_MACHINE void umbel_squares_4_##T(double *restrict squared, const T *x, const T *y, size_t n)            \
    {                                                                                                                \
        for (size_t at = 0; at < n; at += PART)                                                                      \
            *squared++ = part_##T(x + at, y + at, n - at < PART ? n - at : PART);                                    \
    }

/* The same of arrays that stand one after the other, up to these ends, each of a part or less. */
#define EACH(T)                                                                                                      \
    FOR_EACH_MACHINE void umbel_each_4_##T(double *restrict squared, const T *x, const T *y, const size_t *ends,     \
                                           size_t count)                                                             \
    {                                                                                                                \
        for (size_t i = 0, at = 0; i < count; at = ends[i++])                                                        \
            squared[i] = part_##T(x + at, y + at, ends[i] - at);                                                     \
    }

ONE_PART(float)
ONE_PART(double)
SQUARES(float)
SQUARES(double)
EACH(float)
EACH(double)

/* One update, of several arrays, that is added to their sums if all its numbers are finite; or else nothing is.
 *
 *     total[i] = total[i] * rescale + x[i] * w
 *
 * Arrays that are small enough to be in the cache still when they are added are read from memory once.
 */

/* Python's view of a buffer, which is of its stable ABI: its headers are seldom there. */
typedef struct {
    void *start, *owner;
    ptrdiff_t nbytes, itemsize;
    int readonly, dimensions;
    char *format;
    ptrdiff_t *shape, *strides, *suboffsets;
    void *internal;
} Buffer;
typedef int Get(void *object, Buffer *buffer, int flags);
typedef void Release(Buffer *buffer);

/* Returns whether there is neither NaN nor infinity: without their signs, their bits are the largest. */
#define FINITE(T, INT, UNSIGNED)                                                                                     \
    INLINE int finite_##T(const T *x, size_t n)                                                                      \
    {                                                                                                                \
        const T infinity = (T)INFINITY;                                                                              \
        INT most = 0, beyond;                                                                                        \
        memcpy(&beyond, &infinity, sizeof beyond);                                                                   \
        for (size_t i = 0; i < n; i++) {                                                                             \
            INT bits;                                                                                                \
            memcpy(&bits, x + i, sizeof bits);                                                                       \
            bits &= (INT)((UNSIGNED)-1 >> 1);                                                                        \
            most = bits > most ? bits : most;                                                                        \
        }                                                                                                            \
        return most < beyond;                                                                                        \
    }

#define ADDED(T)                                                                                                     \
    INLINE void added_##T(T *restrict total, const T *restrict x, size_t n, T rescale, T w)                          \
    {                                                                                                                \
        for (size_t i = 0; rescale != 1 && i < n; i++)                                                               \
            total[i] *= rescale;                                                                                     \
        for (size_t i = 0; i < n; i++)                                                                               \
            total[i] += x[i] * w;                                                                                    \
    }

/* There has to be room for an address of each array. Their payloads stay where they are as long as somebody has them.
 * Nothing is in `fresh` sums yet: the update is stored as it is. Returns 1 if the update was added, 0 if not, and -1 with
 * an error of Python's. The arrays that were looked at last are added first, as they are in the nearest cache. */
#define SCREENED(T)                                                                                                  \
    FOR_EACH_MACHINE int umbel_screened_4_##T(Get *get, Release *release, void *const *payloads, const T **x,        \
                                              T *const *totals, const size_t *sizes, size_t count, int fresh,        \
                                              T rescale, T w)                                                        \
    {                                                                                                                \
        for (size_t i = 0; i < count; i++) {                                                                         \
            Buffer buffer;                                                                                           \
            if (get(payloads[i], &buffer, 0))                                                                        \
                return -1;                                                                                           \
            size_t nbytes = buffer.nbytes;                                                                           \
            x[i] = buffer.start;                                                                                     \
            release(&buffer);                                                                                        \
            if (nbytes != sizes[i] * sizeof(T) || (uintptr_t)x[i] % sizeof(T))                                       \
                return 0;                                                                                            \
        }                                                                                                            \
        for (size_t i = 0; i < count; i++)                                                                           \
            if (!finite_##T(x[i], sizes[i]))                                                                         \
                return 0;                                                                                            \
        for (size_t i = count; i-- > 0;)                                                                             \
            if (fresh)                                                                                               \
                memcpy(totals[i], x[i], sizes[i] * sizeof(T));                                                       \
            else                                                                                                     \
                added_##T(totals[i], x[i], sizes[i], rescale, w);                                                    \
        return 1;                                                                                                    \
    }

/* Divides the sums of all arrays that were added so; returns whether all are finite then. */
#define DIVIDED(T)                                                                                                   \
    FOR_EACH_MACHINE int umbel_divided_4_##T(T *const *totals, const size_t *sizes, size_t count, T divisor)         \
    {                                                                                                                \
        int sound = 1;                                                                                               \
        for (size_t i = 0; i < count; i++) {                                                                         \
            T *total = totals[i];                                                                                    \
            for (size_t j = 0; j < sizes[i]; j++)                                                                    \
                total[j] /= divisor;                                                                                 \
            sound &= finite_##T(total, sizes[i]);                                                                    \
        }                                                                                                            \
        return sound;                                                                                                \
    }

FINITE(float, int32_t, uint32_t)
FINITE(double, int64_t, uint64_t)
ADDED(float)
ADDED(double)
SCREENED(float)
SCREENED(double)
DIVIDED(float)
DIVIDED(double)
