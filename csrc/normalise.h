// What the encoder's image is made of: samples of a picture as callers have them.
//
//   out[y][x][c] = (image[y][x][c] / white - mean[c]) / std[c], and 0 for the channels beyond the three colours
#pragma once

#include "convolve.h"

namespace liif {

struct NormaliseParams {
  const void* image;
  Type type;           // u8, u16, f16 or f32
  int64_t strides[3];  // elements from one row, column and channel to the next; 0 of a gray picture's only channel
  int64_t rows, columns;
  float white, mean[3], std[3];

  void* out;               // [rows][columns][kSkip]
  Type out_type;           // f32 or bf16
  int64_t out_row_stride;  // elements
};

}  // namespace liif
