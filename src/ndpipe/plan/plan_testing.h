// Profiles made by hand, for tests of the plan.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ndpipe/plan/cost_model.h"

namespace ndpipe::plan {

inline constexpr char kDefaultCut[] = "features";

// rates: (cut, bytes of a photo, seconds of a photo).
inline StoreProfile MakeStore(const std::string& id, double bytes_per_second,
                              std::vector<CutRate> rates) {
  StoreProfile store;
  store.store = id;
  store.name = "host-" + id;
  store.backbone = Sha256::Of("net");
  store.sidecar_share = 1;
  store.cuts = std::move(rates);
  store.bytes_per_second = bytes_per_second;
  return store;
}

inline TrainingRate MakeTraining(const std::string& cut, int64_t feature_bytes,
                                 double seconds_a_photo, int64_t parameters = 100) {
  TrainingRate rate;
  rate.cut.tensor = cut;
  rate.cut.feature_bytes = feature_bytes;
  rate.cut.tail_parameters = parameters;
  rate.seconds_a_photo = seconds_a_photo;
  return rate;
}

// Ten steps of ten photos an epoch, one epoch at the default cut.
inline Workload MakeWorkload(int64_t training_photos = 100) {
  Workload workload;
  workload.training_photos = training_photos;
  workload.linear.batch_size = 10;
  workload.linear.epochs = 1;
  workload.deep = workload.linear;
  workload.default_cut = kDefaultCut;
  workload.classifier_parameters = 100;
  workload.head_parameters = 10;
  return workload;
}

}  // namespace ndpipe::plan
