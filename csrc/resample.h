// The one contract between every caller of the resampler and every implementation of it.
//
// The network's answer is a fine picture, kFactor times as large as its input per axis and stored as the last convolution makes
// it (before the pixel shuffle); an output pixel is a separable sum of kTaps x kTaps fine pixels:
//
//   fine[kFactor r + a][kFactor s + b][c] = z[r][s][(a * 3 + c) * kFactor + b]
//   out[i][j][c] = scale * sum_k sum_l y.taps[i][k] x.taps[j][l] fine[y.first[i] + k][x.first[j] + l][c] + shift
#pragma once

#include "decode.h"

namespace liif {

constexpr int kFactor = 4;                            // fine pixels per cell and axis
constexpr int kTaps = 8;                              // fine pixels per output pixel and axis
constexpr int kFineChannels = 3 * kFactor * kFactor;  // channels of z

// What each output row (or column) is made of; `first` never falls along an axis.
struct TapTable {
  const int32_t* first;  // [size]: first fine line, 0 <= first and first + kTaps <= max(kTaps, kFactor * cells)
  const float* taps;     // [size][kTaps]; zero for lines beyond the last fine one
  int64_t size;
};

struct ResampleParams {
  const void* z;          // [rows][columns][kFineChannels] of `type`
  Type type;              // f32 or bf16; sums are always f32
  int64_t rows, columns;  // cells
  int64_t z_row_stride;   // elements from one row of z to the next
  TapTable y, x;
  Pixels out;
};

}  // namespace liif
