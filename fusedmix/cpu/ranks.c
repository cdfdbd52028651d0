/* FMix's ranks: which pixels of an image come first, the highest first. */

enum { LONG = 11, SHORTER = 8, SMALL = 1 << 13 };     /* bits of a digit, and pixels below which those are fewer */

typedef struct {
    uint32_t key, pixel;
} Keyed;

/* rank: of each of the n pixels of every image; those of one value in their order. Returns as `fusedmix_mix`. */
int fusedmix_ranks(const float *image, int64_t batch, int64_t n, int32_t *rank, int threads)
{
    int bits = n < SMALL ? SHORTER : LONG, digits = (32 + bits - 1) / bits, places = 1 << bits, failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Keyed *from = malloc(2 * n * sizeof(Keyed)), *to = from + n;
        if (!from) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < batch; i++) {
            uint32_t first[4][1 << LONG];         /* of the pixels with each digit: how many, then where */
            if (!from)
                continue;
            for (int d = 0; d < digits; d++)
                memset(first[d], 0, places * sizeof(uint32_t));
            for (int64_t k = 0; k < n; k++) {
                uint32_t value = (uint32_t)bits_of(image[i * n + k] + 0.0f);   /* -0 is 0 */
                from[k].key = value >> 31 ? value : ~value & 0x7FFFFFFF;       /* falls as the value rises */
                from[k].pixel = (uint32_t)k;
                for (int d = 0; d < digits; d++)
                    first[d][from[k].key >> d * bits & (places - 1)]++;
            }
            for (int d = 0; d < digits; d++) {
                uint32_t before = 0;
                for (int place = 0; place < places; place++) {
                    uint32_t here = first[d][place];
                    first[d][place] = before, before += here;
                }
                for (int64_t k = 0; k < n; k++)
                    to[first[d][from[k].key >> d * bits & (places - 1)]++] = from[k];
                Keyed *done = to;
                to = from, from = done;
            }
            for (int64_t k = 0; k < n; k++)
                rank[i * n + from[k].pixel] = (int32_t)k;
        }
        free(from < to ? from : to);
    }
    return failed;
}
