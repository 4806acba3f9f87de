// What a comparison of two model versions gives.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ndpipe/label/labels.h"

namespace ndpipe::label {

// What two versions say of a class: photos that they give its label to.
struct ClassComparison {
  LabelId label = 0;
  std::string name;
  int64_t first = 0;
  int64_t second = 0;
  int64_t both = 0;  // the same photo
};

// How often versions agree with users' labels.
struct AccuracyComparison {
  int64_t photos = 0;  // with a user label and an outcome in both
  int64_t first_right = 0;
  int64_t second_right = 0;
};

struct ChangedPhoto {
  photo::PhotoId id;
  std::string first;  // label names; empty: it failed
  std::string second;
  double first_confidence = 0;
  double second_confidence = 0;
  std::string user_label;  // empty: none
  std::string store;       // one place where it lies
  std::string path;
  std::string origin;
};

// Of present photos. Failed in both counts as the same, failed in one as changed.
struct VersionComparison {
  int64_t first = 0;
  int64_t second = 0;
  int64_t same = 0;
  int64_t changed = 0;
  int64_t only_first = 0;  // photos with an outcome in one of them only
  int64_t only_second = 0;
  AccuracyComparison all;  // on all photos with a user label: many of them were trained on
  AccuracyComparison
      unseen;  // of these, on the held-out and test photos: no version trained on them
  std::vector<ClassComparison> classes;  // by name; those that at least one photo got
  std::vector<ChangedPhoto> examples;    // by falling confidence of the second version
};

}  // namespace ndpipe::label
