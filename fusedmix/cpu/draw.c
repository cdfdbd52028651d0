/* Draws: Philox words, plans of mixup and CutMix, and of the whole family. */

/* out: [4, n]. stream_step: 0 where all share one stream. */
void fusedmix_words(uint64_t seed, uint64_t offset, int64_t n, const int64_t *index, const int64_t *stream,
                    int64_t stream_step, int rounds, uint32_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        Words drawn = words_of(seed, offset, (uint32_t)index[i], (uint32_t)stream[i * stream_step], rounds);
        for (int k = 0; k < 4; k++)
            out[k * n + i] = drawn.word[k];
    }
}

/* A recipe of mixup and CutMix for images of one size. */
typedef struct {
    int64_t height, width, least[2], sides[2];    /* least, sides: of minmax boxes, down and across; 0 sides: none */
    int64_t mode, has_box, has_mixup, correct_lam;
    float p, switch_prob, mixup_alpha, cutmix_alpha;
} Settings;

static float sin_half_pi(float v)
{
    static const float terms[] = SIN_POLY;
    return POLYNOMIAL(terms, v * v) * v;
}

static APART float symmetric_beta(uint32_t word_u, uint32_t word_v, float alpha)
{
    static const float terms[] = EXPM1_POLY;
    float u = open_unit(word_u);
    if (alpha == 1)
        return u;
    float length = -logarithm(u) / alpha;
    length = length < BETA_MAX_LOG ? length : BETA_MAX_LOG;
    float q = decay(length);
    float p = length < 0.25f ? POLYNOMIAL(terms, length) * length : 1 - q;
    float c = sin_half_pi(open_unit(word_v)), r = q / (p * c * c);
    r = r < BETA_MAX_RATIO ? r : BETA_MAX_RATIO;
    float root = sqrtf(1 + r), small = r / (2 * root * (root + 1));
    return word_u & 1 ? 1 - small : small;
}

/* One axis of a box as CutMix cuts it: a share `ratio` of the side about a centre, clipped. edge: start; [2]: stop. */
static void cut_side(float ratio, uint32_t word, int64_t side, int64_t *edge)
{
    int64_t half = (int64_t)(ratio * (float)side) / 2, centre = below(word, side);
    edge[0] = clamp(centre - half, 0, side);
    edge[2] = clamp(centre + half, 0, side);
}

/* One axis of a minmax box: one of `sides` lengths from `least` on, anywhere that it fits. */
static void minmax_side(int64_t least, int64_t sides, uint32_t word_side, uint32_t word, int64_t side, int64_t *edge)
{
    int64_t cut = least + below(word_side, sides);
    edge[0] = below(word, side - cut + 1);
    edge[2] = edge[0] + cut;
}

/* box: y0, x0, y1, x1. */
static void draw_box(const Settings *s, float lam, const Words *sample, const Words *place, int64_t *box)
{
    float root = sqrtf(1 - lam);
    for (int axis = 0; axis < 2; axis++) {
        int64_t side = axis ? s->width : s->height;
        if (s->sides[axis])
            minmax_side(s->least[axis], s->sides[axis], sample->word[2 + axis], place->word[axis], side, box + axis);
        else
            cut_side(root, place->word[axis], side, box + axis);
    }
}

static float kept_fraction(const int64_t *box, int64_t height, int64_t width)
{
    int64_t total = height * width, area = (box[2] - box[0]) * (box[3] - box[1]);
    return (float)(total - area) / (float)total;
}

/* As the reference's `draw`. mate: given unless `matches`, then drawn here. lam, box: [batch, ...], or given where
given_lam, given_box are not NULL. */
void fusedmix_draw(const Settings *s, uint64_t seed, uint64_t offset, int64_t sample_offset, int64_t batch, int matches,
                   const float *given_lam, const int32_t *given_box, int64_t *mate, int64_t *method, int64_t *partner,
                   float *lam, int64_t *box)
{
    if (matches) {
        int64_t even = batch % 2 == 0, n = batch - even;
        int64_t h = below(words_at(seed, offset, (uint32_t)sample_offset, STREAM_MATCHING).word[0], n);
        for (int64_t i = 0; i < batch; i++)
            mate[i] = ((2 * h - i) % n + n) % n;
        if (even)
            mate[h] = n, mate[n] = h;
    }
    for (int64_t i = 0; i < batch; i++) {
        int64_t lower = s->mode == MODE_PAIR && mate[i] < i ? mate[i] : i;
        uint32_t index = s->mode == MODE_BATCH ? 0 : (uint32_t)(sample_offset + lower);
        Words sample = words_at(seed, offset, index, STREAM_SAMPLE), place = {{0}};
        int cut = s->has_box && (!s->has_mixup || unit(sample.word[1]) < s->switch_prob);
        int mixed = mate[i] != i && (s->p >= 1 || unit(sample.word[0]) < s->p);
        int64_t drawn_box[4] = {0};
        float drawn;
        if (given_lam)
            drawn = given_lam[i] < 0 ? 0 : given_lam[i] > 1 ? 1 : given_lam[i];
        else
            drawn = symmetric_beta(sample.word[2], sample.word[3], cut ? s->cutmix_alpha : s->mixup_alpha);
        if (cut) {
            if (given_box) {
                for (int axis = 0; axis < 2; axis++) {
                    int64_t side = axis ? s->width : s->height;
                    drawn_box[axis] = clamp(given_box[4 * i + axis], 0, side);
                    drawn_box[2 + axis] = clamp(given_box[4 * i + 2 + axis], drawn_box[axis], side);
                }
            } else {
                place = words_at(seed, offset, index, STREAM_BOX);
                draw_box(s, drawn, &sample, &place, drawn_box);
            }
            if (s->correct_lam)
                drawn = kept_fraction(drawn_box, s->height, s->width);
        }
        method[i] = mixed ? cut ? METHOD_CUTMIX : METHOD_MIXUP : METHOD_NONE;
        lam[i] = mixed ? drawn : 1;
        partner[i] = mixed ? mate[i] : i;
        for (int k = 0; k < 4; k++)
            box[4 * i + k] = mixed ? drawn_box[k] : 0;
    }
}

/* A ratio of sides, uniform in [low, high) or in its logarithm. */
static float aspect_of(uint32_t word, float low, float high, int linear)
{
    if (linear)
        return between(word, low, high);
    float power = between(word, logarithm(low), logarithm(high)), shrunk = decay(fabsf(power));
    return power > 0 ? 1 / shrunk : shrunk;
}

/* One try at Random Erasing's box, y0, x0, y1, x1: whether it fits. knob: a row of knobs. */
static APART int erased_box(const Words *w, const float *knob, int linear, int64_t count, int64_t height, int64_t width,
                      int64_t *box)
{
    float area = between(w->word[0], knob[KNOB_A], knob[KNOB_B]) * (float)(height * width) / (float)count;
    float aspect = aspect_of(w->word[1], knob[KNOB_C], knob[KNOB_D], linear);
    int64_t high = (int64_t)floorf(sqrtf(area * aspect) + 0.5f);
    int64_t wide = (int64_t)floorf(sqrtf(area / aspect) + 0.5f);
    if (high >= height || wide >= width)
        return 0;
    box[0] = below(w->word[2], height - high + 1), box[2] = box[0] + high;
    box[1] = below(w->word[3], width - wide + 1), box[3] = box[1] + wide;
    return 1;
}

/* The boxes of Random Erasing or Cutout, of zeros beyond `count` and where no try fits. */
static APART void draw_holes(int64_t code, const float *knob, uint64_t seed, uint64_t offset, uint32_t index,
                             int64_t stream, int64_t count, int64_t height, int64_t width, int64_t *box)
{
    for (int64_t hole = 0; hole < COUNT_OF(code); hole++, box += 4, stream += STREAM_STEP * TRY_STEP) {
        if (METHOD_OF(code) == METHOD_CUTOUT) {
            Words w = words_at(seed, offset, index, (uint32_t)stream);
            int64_t half = (int64_t)knob[KNOB_A] / 2;
            for (int axis = 0; axis < 2; axis++) {
                int64_t side = axis ? width : height, centre = below(w.word[2 + axis], side);
                box[axis] = clamp(centre - half, 0, side);
                box[2 + axis] = clamp(centre + half, 0, side);
            }
        } else if (hole < count) {
            for (int64_t attempt = 0; attempt < TRIES; attempt++) {
                Words w = words_at(seed, offset, index, (uint32_t)(stream + STREAM_STEP * attempt));
                if (erased_box(&w, knob, HAS_FLAG(code, FLAG_LINEAR), count, height, width, box))
                    break;
            }
        }
    }
}

static APART void turned(float degrees, float *cosine, float *sine)
{
    float quarter = floorf(degrees / 90.0f), v = (degrees - quarter * 90.0f) / 90.0f;
    float s = sin_half_pi(v), c = sin_half_pi(1 - v);
    int quadrant = (int)quarter & 3;
    *cosine = quadrant % 2 ? s : c, *sine = quadrant % 2 ? c : s;
    *cosine = quadrant == 1 || quadrant == 2 ? -*cosine : *cosine;
    *sine = quadrant >= 2 ? -*sine : *sine;
}

/* In units of 2**-TURN_BITS. */
static int64_t fixed(float x)
{
    return (int64_t)rintf(x * (float)(1 << TURN_BITS));
}

/* Slots of a method that drops a region, which are zeros. */
static APART void draw_dropped(int64_t code, const float *knob, uint64_t seed, uint64_t offset, uint32_t index,
                         int64_t region_stream, int64_t hole_stream, int64_t height, int64_t width, int64_t *slots)
{
    Words w = words_at(seed, offset, index, (uint32_t)region_stream);
    int64_t method = METHOD_OF(code), count = COUNT_OF(code);
    if (method == METHOD_GRIDMASK) {
        int64_t low = (int64_t)knob[KNOB_A], more = (int64_t)knob[KNOB_B] - low;
        int64_t d = at_least_1(low + below(w.word[0], at_least_1(more)));
        int64_t degrees = below(w.word[3], at_least_1((int64_t)knob[KNOB_D]));
        float product = (float)d * knob[KNOB_C];
        int64_t length = at_least_1((int64_t)ceilf(product)), most = at_least_1(d - 1);
        length = knob[KNOB_F] > 0 ? (int64_t)(product + 0.5f) : length < most ? length : most;
        float cosine, sine;
        turned((float)degrees, &cosine, &sine);
        int64_t drawn[] = {d, length, below(w.word[1], d), below(w.word[2], d), fixed(cosine), fixed(sine),
                           (int64_t)knob[KNOB_E]};
        memcpy(slots, drawn, sizeof(drawn));
    } else if (method == METHOD_HIDE) {
        int64_t size = (int64_t)knob[KNOB_C + below(w.word[1], at_least_1((int64_t)knob[KNOB_B]))];
        slots[0] = slots[1] = size > 0 ? size : WIDE_CELL;
        slots[2] = w.word[0], slots[3] = size > 0 ? (int64_t)(knob[KNOB_A] * 0x1p24f) : 0;
    } else {
        if (method == METHOD_ERASING) {
            int64_t low = (int64_t)knob[KNOB_E], high = (int64_t)knob[KNOB_F];
            count = low + below(w.word[0], at_least_1(high - low + 1));
        }
        draw_holes(code, knob, seed, offset, index, hole_stream, count, height, width, slots);
    }
}

/* Mean weight along an axis of SmoothMix's bell. */
static float bell_share(int64_t centre, float inverse, int64_t side)
{
    int64_t total = 0;
    for (int64_t k = 0; k < side; k++)
        total += (int64_t)bell(k - centre, inverse);
    return (float)total / (float)(side << BELL_BITS);
}

/* Slots of a method that mixes, which are zeros, and lam as the region leaves it. box: NULL unless given. */
static APART float draw_mixed(int64_t code, const float *knob, float lam, int lam_is_given, const int64_t *box,
                        const Words *sample, const Words *place, const Words *region, int64_t height, int64_t width,
                        int64_t *slots)
{
    int64_t method = METHOD_OF(code), total = height * width;
    if (method == METHOD_CUTMIX || method == METHOD_RESIZEMIX) {
        float ratio = sqrtf(1 - lam);
        if (method == METHOD_RESIZEMIX && !lam_is_given)
            ratio = between(sample->word[2], knob[KNOB_A], knob[KNOB_B]);
        for (int axis = 0; axis < 2; axis++) {
            int64_t side = axis ? width : height;
            if (box) {
                slots[axis] = box[axis], slots[2 + axis] = box[2 + axis];
            } else if (method == METHOD_CUTMIX && HAS_FLAG(code, FLAG_MINMAX)) {
                int64_t low = (int64_t)(knob[KNOB_B] * (float)side), high = (int64_t)(knob[KNOB_C] * (float)side);
                minmax_side(low, at_least_1(high - low), sample->word[2 + axis], place->word[axis], side, slots + axis);
            } else {
                cut_side(ratio, place->word[axis], side, slots + axis);
            }
        }
        return method == METHOD_RESIZEMIX || HAS_FLAG(code, FLAG_CORRECT) ? kept_fraction(slots, height, width) : lam;
    }
    if (method == METHOD_GRIDMIX) {
        int64_t n = COUNT_OF(code), tall = (height + n - 1) / n, wide = (width + n - 1) / n, taken = 0;
        slots[0] = tall, slots[1] = wide, slots[2] = region->word[0], slots[3] = (int64_t)((1 - lam) * 0x1p24f);
        for (int64_t y = 0, cell = 0; y < height; y += tall)
            for (int64_t x = 0; x < width; x += wide, cell++)
                if (cell_is_chosen(slots, cell))
                    taken += (height - y < tall ? height - y : tall) * (width - x < wide ? width - x : wide);
        return (float)(total - taken) / (float)total;
    }
    if (method == METHOD_SMOOTHMIX) {
        float share[2], sigma = between(region->word[2], knob[KNOB_A], knob[KNOB_B]);
        for (int axis = 0; axis < 2; axis++) {
            int64_t side = axis ? width : height;
            float wide = sigma * (float)side, inverse = 0.5f / (wide * wide);
            slots[axis] = below(region->word[axis], side);
            slots[2 + axis] = bits_of(inverse);
            share[axis] = bell_share(slots[axis], inverse, side);
        }
        return 1 - share[0] * share[1];
    }
    if (method == METHOD_FMIX) {
        int64_t kept = (int64_t)floorf(lam * (float)total + unit(place->word[1]));
        slots[0] = kept < total ? kept : total;
        return (float)slots[0] / (float)total;
    }
    return lam;
}

/* What is known of every sample of a region: [batch, ...]. */
typedef struct {
    int64_t *slots, *key, *code, count;
} Regions;

/* As the reference's `draw_family`. choices: `count` of them, then what is erased, or 0; knobs: a row each. given_lam,
given_box: [batch, ...], or NULL. */
void fusedmix_draw_family(uint64_t seed, uint64_t offset, int64_t sample_offset, int64_t batch, int64_t height,
                          int64_t width, int mode, const int64_t *choices, int64_t count, const float *knobs,
                          const int64_t *mate, const float *given_lam, const int64_t *given_box, int32_t *method,
                          float *lam, int64_t *partner, const Regions *region, const Regions *erased)
{
    memset(region->slots, 0, batch * region->count * sizeof(int64_t));
    memset(erased->slots, 0, batch * erased->count * sizeof(int64_t));
    for (int64_t i = 0; i < batch; i++) {
        int64_t lower = mode == MODE_PAIR && mate[i] < i ? mate[i] : i, k = 0;
        uint32_t index = mode == MODE_BATCH ? 0 : (uint32_t)(sample_offset + lower);
        Words sample = words_at(seed, offset, index, STREAM_SAMPLE);
        while (k < count && unit(sample.word[0]) >= knobs[k * KNOBS + KNOB_EDGE])
            k++;
        method[i] = METHOD_NONE, lam[i] = 1, partner[i] = i, region->key[i] = region->code[i] = 0;
        int64_t code = k < count ? choices[k] : METHOD_NONE, *slots = region->slots + i * region->count;
        int mixes = METHOD_OF(code) != METHOD_NONE && !DROPS(code);
        const float *knob = knobs + k * KNOBS;
        if (k < count && !(mixes && mate[i] == i)) {        /* a sample left alone is not mixed */
            method[i] = METHOD_OF(code);
            region->code[i] = code | k << ROW_SHIFT;
            region->key[i] = method[i] == METHOD_NONE ? 0 : sample.word[1];
            if (mixes) {
                Words place = words_at(seed, offset, index, STREAM_BOX);
                Words other = words_at(seed, offset, index, STREAM_REGION);
                float drawn = given_lam ? given_lam[i] : symmetric_beta(sample.word[2], sample.word[3], knob[KNOB_A]);
                lam[i] = draw_mixed(code, knob, drawn, given_lam != NULL, given_box ? given_box + 4 * i : NULL,
                                    &sample, &place, &other, height, width, slots);
                partner[i] = mate[i];
            } else if (method[i] != METHOD_NONE) {
                draw_dropped(code, knob, seed, offset, index, STREAM_REGION, STREAM_HOLES, height, width, slots);
            }
        }
        if (!choices[count])
            continue;
        index = (uint32_t)(sample_offset + i), knob = knobs + count * KNOBS;
        Words apply = words_at(seed, offset, index, STREAM_ERASE);
        int here = unit(apply.word[0]) < knob[KNOB_EDGE];
        erased->key[i] = here ? apply.word[1] : 0;
        erased->code[i] = here ? choices[count] | count << ROW_SHIFT : 0;
        if (here)
            draw_dropped(choices[count], knob, seed, offset, index, STREAM_ERASE_REGION, STREAM_ERASE_HOLES, height,
                         width, erased->slots + i * erased->count);
    }
}
