// Tensors between the model's form and LibTorch's.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "ndpipe/model/graph.h"

namespace ndpipe::engine::torch {

// Nothing for types that LibTorch does not compute with (uint16, uint32, uint64).
std::optional<at::ScalarType> ScalarTypeOf(model::DataType type);
model::DataType DataTypeOf(at::ScalarType type);  // kUndefined for those that ONNX does not have

// A copy, on the CPU, of the same type; undefined for types that ScalarTypeOf does not know.
at::Tensor ToTorch(const model::Tensor& tensor);
// A copy of the values, wherever they lie.
model::Tensor FromTorch(const at::Tensor& tensor);

}  // namespace ndpipe::engine::torch
