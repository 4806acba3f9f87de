// The codec of a store's sidecars: as its operator says, or measured once and kept.
#pragma once

#include <optional>
#include <string>

#include "ndpipe/base/result.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/photo/derived/derived_store.h"
#include "ndpipe/photo/image/sidecar.h"
#include "ndpipe/photo/store.h"

namespace ndpipe::pipestore {

// Borrows the store and what is derived from it. One thread at a time.
class CodecSetting {
 public:
  // codec: nothing is "auto". num_cores: 0 means all.
  CodecSetting(std::optional<photo::SidecarCodec> codec, int num_cores, photo::PhotoStore& store,
               photo::DerivedStore& derived)
      : set_(codec), num_cores_(num_cores), store_(store), derived_(derived) {}

  // "auto" is nothing. kInvalidArgument for an unknown name, and for a lossy codec: these belong to
  // a backbone's rule, since labels depend on them.
  static Result<std::optional<photo::SidecarCodec>> Parse(const std::string& name);

  // What sidecars are kept in where the rule has exact pixels. The first call of a store's life
  // measures, on a few of its photos, its disk and this engine, which takes about a second; what it
  // finds is kept in derived/sidecar-codec. Sidecars of other lossless codecs are dropped.
  // Measuring that fails is logged, and the answer is zstd.
  photo::SidecarCodec Get(const photo::PreprocessSpec& spec, const engine::BodyEngine& body);

 private:
  photo::SidecarCodec Choose(const photo::PreprocessSpec& spec, const engine::BodyEngine& body);
  std::vector<std::vector<uint8_t>> SamplePhotos(const photo::PreprocessSpec& spec);
  void DropOthers(photo::SidecarCodec codec);

  const std::optional<photo::SidecarCodec> set_;
  const int num_cores_;
  photo::PhotoStore& store_;
  photo::DerivedStore& derived_;
  std::optional<photo::SidecarCodec> known_;
};

}  // namespace ndpipe::pipestore
