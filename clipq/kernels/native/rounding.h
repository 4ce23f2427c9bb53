// Launches of the rounding kernels, free of torch's headers: rounding.cu compiles in seconds.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

namespace clipq {

enum class Kind : int { float32 = 0, float16 = 1, bfloat16 = 2 };
enum class Mode : int { int8 = 0, uint8 = 1, fake = 2 };

// Rows (rows, columns), contiguous; `group` columns share a scale, of `groups` in a row. Scales of
// rows lie `scale_row` apart: 0 where one scale serves all. zero_point may be null.
struct Static {
  const void* x;
  const float* scale;
  const float* zero_point;
  void* out;
  int64_t rows, columns, group, scale_row;
  float low, high;
};

// The range of each part, a row or a group of it, makes its grid of `levels` + 1 codes.
struct Dynamic {
  const void* x;
  void* out;
  int64_t rows, columns, group, groups;
  float levels;
  bool asymmetric;
};

cudaError_t round_static(const Static& given, Kind kind, Mode mode, cudaStream_t stream);
cudaError_t round_dynamic(const Dynamic& given, Kind kind, cudaStream_t stream);

}  // namespace clipq
