// What was measured of a cluster: the input of every prediction.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/cuts.h"

namespace ndpipe::plan {

// One PipeStore at one cut, over a sample of its photos.
struct CutRate {
  std::string cut;
  int64_t feature_bytes = 0;   // of one photo
  double seconds_a_photo = 0;  // wall clock of the whole store, from sidecars where it keeps them
  double cached_share = 0;     // of the sample: photos whose features were cached already
};

struct StoreProfile {
  std::string store;  // id
  std::string name;   // for people
  std::string device;
  std::string program;  // version
  Hash256 backbone;
  model::Precision precision = model::Precision::kFp32;
  int64_t measured_us = 0;  // UTC
  int64_t num_photos = 0;   // of the sample
  // What a photo without a sidecar takes more; the share of the sample that had one before.
  double decode_seconds_a_photo = 0;
  double sidecar_share = 0;
  std::vector<CutRate> cuts;

  // To the Tuner, when no other store sends, with the Tuner's durable write; 0: not measured.
  double bytes_per_second = 0;
  double send_seconds_a_byte = 0;   // of all its cores, which extraction lacks meanwhile
  int64_t network_measured_us = 0;  // UTC
};

// The Tuner at one cut.
struct TrainingRate {
  model::Cut cut;
  double seconds_a_photo = 0;   // of one training step, divided by its photos
  double evaluate_a_photo = 0;  // seconds
};

struct TunerProfile {
  Hash256 backbone;
  std::string program;
  int num_threads = 0;  // that training is given; 0: what it takes
  int64_t num_classes = 0;
  int64_t measured_us = 0;
  std::vector<TrainingRate> cuts;
  // What the choice of these cuts left out.
  int64_t num_listed = 0;
  int64_t num_alike = 0;
  int64_t num_thinned = 0;
  int64_t num_too_large = 0;

  double bytes_per_second = 0;  // of all stores at once; 0: not measured
  int64_t network_measured_us = 0;
  int64_t network_stores = 0;  // how many sent
};

struct Profiles {
  std::vector<StoreProfile> stores;  // one for each (store, backbone, precision)
  std::vector<TunerProfile> tuners;  // one for each backbone
};

// Replaces the one with the same key, or adds.
void Keep(Profiles& profiles, StoreProfile store);
void Keep(Profiles& profiles, TunerProfile tuner);
// Null: none.
const StoreProfile* FindStore(const Profiles& profiles, const std::string& store,
                              const Hash256& backbone, model::Precision precision);
const TunerProfile* FindTuner(const Profiles& profiles, const Hash256& backbone);

}  // namespace ndpipe::plan
