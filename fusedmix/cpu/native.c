/* The CPU path's inner loops, as one unit. */

#include "common.h"
#include "draw.c"
#include "draw_place.c"
#include "mix.c"
#include "family.c"
#include "place.c"
#include "ranks.c"
