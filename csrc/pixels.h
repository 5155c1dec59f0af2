// The last step of every decoder: which pixels there are, what the network's answers become, and where they go.
#pragma once

#include "numbers.h"

namespace liif {

struct Pixels {
  // false: a grid, a row for each entry of the y table and a column for each of the x table. true: a list of points in any order,
  // one entry of each, and no rows: their stride is 0.
  bool paired;

  float scale[3];  // per channel, from the network's range to the output's
  float shift[3];
  float low, high;  // outputs are clamped to [low, high], then rounded to nearest even for integer types

  void* data;  // u8, u16, f16 or f32
  Type type;
  int64_t row_stride, column_stride, channel_stride;  // elements
};

}  // namespace liif
